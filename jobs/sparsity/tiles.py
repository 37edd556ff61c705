"""Groups of weights: matrices cut into tiles, and the score of each group over all ranks.

Blocks, rows, columns, heads, units and sub-layers are all tilings: a matrix (R, C) is cut into tiles of r x c, and the
tiles of one place belong to one group, in one matrix or in several that go together:

    blocks 4x4   tiles (4, 4)            heads        q, k, v: tiles (R / heads, C); output: tiles (R, C / heads)
    rows         tiles (1, C)            ffn_units    first: tiles (1, C); second: tiles (R, 1)
    columns      tiles (R, 1)            sublayers    tiles (R, C) of every matrix

The table of families says which matrices these are. A gated feed-forward has two first ones, cut alike.
With grouped queries several heads share a key and a value: what can be removed is then a key-value head with all of its
heads, so that "heads" tiles are (R / groups, C) and (R, C / groups), and sparsity is the share of such groups.
A rank that owns a run of a matrix adds up its part of every tile; the parts are added over ranks (8 bytes a group).
They are integers, multiples of a 2^-k of the pool's largest element, because sums of floats depend on their order: so
a group's score, and with it the mask, is the same on any number of ranks.
Letters: L elements of a local run, G groups, R rows, C columns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from prunus.configs.values.family_table import place_of
from prunus.configs.values.patterns import Blocks, Structure
from prunus.jobs.engine.shards import Shard
from prunus.jobs.errors import PruningError
from prunus.jobs.ranks import Ranks

_BITS = 61
"""Of a sum: one less than int64 has beside the sign, for the rounding of each element."""
_PART: dict[str, tuple[str, bool]] = {
    "q": ("attention", True),
    "k": ("attention", True),
    "v": ("attention", True),
    "into_heads": ("attention", True),
    "o": ("attention", False),
    "up": ("feed-forward", True),
    "gate": ("feed-forward", True),
    "down": ("feed-forward", False),
}
"""Sub-layer of each role in the table of families, and whether it leads in (its rows are cut) or out (its columns)."""


@dataclass(frozen=True)
class Member:
    """One matrix of a tiling: place among the shards, and size of its tiles."""

    index: int
    rows: int
    columns: int


@dataclass(frozen=True)
class Tiling:
    """Matrices whose tiles are decided together.

    Attributes:
        name: For messages.
        members: Matrices; each has ``num_groups`` tiles.
        num_groups: G.
        group_size: Weights of one group, over all members.
    """

    name: str
    members: tuple[Member, ...]
    num_groups: int
    group_size: int


def tilings(pattern: Blocks | Structure, shards: Sequence[Shard], num_heads: int | None) -> list[Tiling]:
    """Cut the prunable weights into groups.

    Args:
        num_heads: Attention heads of the model (of the queries), for pattern ``heads``; None: not known.

    Raises:
        PruningError: A shape cannot be cut so, or no weight has such parts.
    """
    if others := [s for s in shards if len(s.shape) != 2]:
        raise PruningError(
            f"patterns of groups are made of rows and columns, but {others[0].name} has shape {list(others[0].shape)}; "
            "leave it out with method.prunable.exclude, or use pattern unstructured"
        )
    if isinstance(pattern, Blocks):
        return [_tiling(s.name, [(s, pattern.rows, pattern.columns)]) for s in shards]
    if pattern == "rows":
        return [_tiling(s.name, [(s, 1, s.shape[1])]) for s in shards]
    if pattern == "columns":
        return [_tiling(s.name, [(s, s.shape[0], 1)]) for s in shards]
    parts = _parts(shards)
    found: list[Tiling] = []
    if pattern in {"heads", "sublayers"}:
        for layer, into, out in parts["attention"]:
            if pattern == "heads" and not num_heads:
                raise PruningError("pattern heads: the table of model families has no heads for this model; use rows")
            groups = _num_head_groups(layer, into, out, num_heads) if pattern == "heads" and num_heads else 1
            found.append(_joint(f"{layer} attention", into, out, groups))
    if pattern in {"ffn_units", "sublayers"}:
        for layer, into, out in parts["feed-forward"]:
            units = 1 if pattern == "sublayers" else (into[0].shape[0] if into else out[0].shape[1])
            found.append(_joint(f"{layer} feed-forward", into, out, units))
    if not found:
        raise PruningError(
            f"pattern {pattern} finds no such part among the prunable weights ({shards[0].name}, …); use rows or "
            "columns"
        )
    taken = {member.index for tiling in found for member in tiling.members}
    if left := [s.name for s in shards if s.index not in taken]:
        raise PruningError(
            f"pattern {pattern} has no place for {len(left)} of {len(shards)} prunable weights ({left[0]}, for one); "
            "leave them out with method.prunable.exclude"
        )
    return sorted(found, key=lambda tiling: tiling.members[0].index)


def group_scores(
    pool: Sequence[Tiling], shards: Sequence[Shard], runs: Sequence[torch.Tensor], ranks: Ranks, norm: str
) -> list[torch.Tensor]:
    """Scores of all groups of a pool, equal on all ranks (collective).

    Args:
        runs: Values of each shard's run, finite, in the shards' order; a weight scores its absolute value.
        norm: ``l1``, ``l2`` or ``mean``.

    Returns:
        One fp32 tensor (G,) per tiling, in units of the pool's own: they order groups, no more.
    """
    square = norm == "l2"
    members = [member for tiling in pool for member in tiling.members]
    largest = max((float(runs[m.index].abs().max()) for m in members if runs[m.index].numel()), default=0.0)
    largest = max(ranks.gather(largest)) ** (2 if square else 1)
    if largest == 0.0:
        return [torch.zeros(t.num_groups, dtype=torch.float32, device=ranks.device) for t in pool]
    size = max(tiling.group_size for tiling in pool)
    scale = math.ldexp(1.0, _BITS - math.ceil(math.log2(size)) - math.frexp(largest)[1])
    sums: list[torch.Tensor] = []
    own = torch.zeros(sum(t.num_groups for t in pool), dtype=torch.int64, device=ranks.device)
    begin = 0
    for tiling in pool:
        part_G = own[begin : begin + tiling.num_groups]
        begin += tiling.num_groups
        for member in tiling.members:
            shard = shards[member.index]
            if shard.numel and (not shard.replicated or ranks.is_main):
                _add_tiles(part_G, runs[member.index], shard, member, scale, square)
        sums.append(part_G)
    ranks.sum(own)
    return [
        (part_G.double() * math.ldexp(1.0, -_BITS) / (t.group_size if norm == "mean" else 1)).float()
        for part_G, t in zip(sums, pool, strict=True)
    ]


def run_of(keep_G: torch.Tensor, shard: Shard, member: Member) -> torch.Tensor:
    """A group's decision for each weight of a run: bool (numel,)."""
    if not shard.numel:
        return torch.ones(0, dtype=torch.bool, device=keep_G.device)
    num_columns = shard.shape[1]
    first, last = shard.start // num_columns, (shard.start + shard.numel - 1) // num_columns
    grid = keep_G.view(-1, num_columns // member.columns)
    rows = torch.arange(first, last + 1, device=keep_G.device) // member.rows
    whole = grid[rows].repeat_interleave(member.columns, dim=1).view(-1)
    begin = shard.start - first * num_columns
    return whole[begin : begin + shard.numel]


def _add_tiles(
    total_G: torch.Tensor, run_L: torch.Tensor, shard: Shard, member: Member, scale: float, square: bool
) -> None:
    """Add a run's part of every tile, as integers."""
    num_columns = shard.shape[1]
    first, end = shard.start // num_columns, -(-(shard.start + shard.numel) // num_columns)
    units_L = run_L.double()
    units_L = (units_L.square_() if square else units_L.abs_()).mul_(scale).round_().to(torch.int64)
    before = shard.start - first * num_columns
    after = end * num_columns - shard.start - shard.numel
    rows = torch.nn.functional.pad(units_L, (before, after)).view(end - first, -1, member.columns).sum(2)
    grid = total_G.view(-1, rows.shape[1])
    grid.index_add_(0, torch.arange(first, end, device=rows.device) // member.rows, rows)


def _tiling(name: str, parts: list[tuple[Shard, int, int]]) -> Tiling:
    counts = set()
    for shard, rows, columns in parts:
        if len(shard.shape) != 2 or shard.shape[0] % rows or shard.shape[1] % columns:
            raise PruningError(
                f"{shard.name} of shape {list(shard.shape)} cannot be cut into groups of {rows} x {columns} (outputs x "
                "inputs); use a size that divides it, or leave it out with method.prunable.exclude"
            )
        counts.add(shard.global_numel // (rows * columns))
    if len(counts) != 1:
        raise PruningError(
            f"{name}: its matrices fall into {', '.join(map(str, sorted(counts)))} groups, which do not belong "
            "together; use pattern rows"
        )
    members = tuple(Member(shard.index, rows, columns) for shard, rows, columns in parts)
    return Tiling(name, members, counts.pop(), sum(rows * columns for _, rows, columns in parts))


def _joint(name: str, into: list[Shard], out: list[Shard], groups: int) -> Tiling:
    """Rows of the matrices that lead in, and columns of the one that leads out."""
    for shard, size in [(s, s.shape[0]) for s in into] + [(s, s.shape[1]) for s in out]:
        if size % groups:
            raise PruningError(f"{shard.name} of shape {list(shard.shape)} cannot be cut into {groups} equal parts")
    return _tiling(
        name,
        [(s, s.shape[0] // groups, s.shape[1]) for s in into] + [(s, s.shape[0], s.shape[1] // groups) for s in out],
    )


def _num_head_groups(layer: str, into: list[Shard], out: list[Shard], num_heads: int) -> int:
    """How many parts of an attention can be removed: its heads, or with grouped queries its key-value heads.

    q and the output have one head size of rows or columns per head, k and v per key-value head; so the smaller ones
    tell how many of these there are.
    """
    widths = {shard.shape[0] for shard in into} | {shard.shape[1] for shard in out}
    widest, narrowest = max(widths), min(widths)
    if widest % num_heads:
        return num_heads  # refused by name where the matrices are cut
    head_size = widest // num_heads
    groups = narrowest // head_size
    if len(widths) > 2 or narrowest % head_size or not groups or num_heads % groups:
        found = ", ".join(map(str, sorted(widths)))
        raise PruningError(
            f"{layer} attention: matrices of {found} outputs do not belong to {num_heads} heads of one size; use rows"
        )
    return groups


def _parts(shards: Sequence[Shard]) -> dict[str, list[tuple[str, list[Shard], list[Shard]]]]:
    """Matrices of each sub-layer by the table of families: (layer, leading in, leading out)."""
    layers: dict[tuple[str, str], tuple[list[Shard], list[Shard]]] = {}
    for shard in shards:
        place = place_of(shard.name)
        if place is None or place.role not in _PART:
            continue
        part, leads_in = _PART[place.role]
        into, out = layers.setdefault((part, place.layer), ([], []))
        (into if leads_in else out).append(shard)
    parts: dict[str, list[tuple[str, list[Shard], list[Shard]]]] = {"attention": [], "feed-forward": []}
    for (part, layer), (into, out) in layers.items():
        parts[part].append((layer, into, out))
    return parts
