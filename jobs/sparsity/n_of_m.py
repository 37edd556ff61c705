"""N:M: of every M consecutive weights along the input dimension the N largest stay.

Groups are M consecutive elements of the flattened matrix, because M divides the number of inputs. A run of ZeRO's flat
partition may begin or end inside a group: the few elements at such an edge are shown to all ranks, and every rank
decides the group alike. Ties go by position: of equals the first is removed.
Letters: L elements of a local run, G groups, M elements of a group.
"""

from collections.abc import Sequence

import torch

from prunus.jobs.engine.shards import Shard
from prunus.jobs.errors import PruningError
from prunus.jobs.ranks import Ranks

_Edge = tuple[int, int, list[float]]
"""Weight, first element, values."""


def refuse_shapes(shards: Sequence[Shard], of: int) -> None:
    """Refuse weights whose rows are no whole groups.

    Raises:
        PruningError: With the first of them.
    """
    wrong = [s for s in shards if len(s.shape) != 2 or s.shape[1] % of]
    if wrong:
        raise PruningError(
            f"groups of {of} do not fit {len(wrong)} of {len(shards)} weights: {wrong[0].name} of shape "
            f"{list(wrong[0].shape)} has a number of inputs that {of} does not divide; use another M, or "
            "leave them out with method.prunable.exclude"
        )


def keep_in_groups(
    shards: Sequence[Shard], runs: Sequence[torch.Tensor], num_remove: int, of: int, ranks: Ranks
) -> list[torch.Tensor]:
    """Choose which elements stay when the ``num_remove`` smallest of every group go (collective).

    Args:
        runs: Values of each shard's run, finite, in the shards' order; the score is the absolute value.
        of: M.

    Returns:
        One bool tensor per run.
    """
    if num_remove == 0:
        return [torch.ones_like(run_L, dtype=torch.bool) for run_L in runs]
    keep: list[torch.Tensor] = []
    edges: list[list[tuple[int, int]]] = []
    shown: list[_Edge] = []
    for shard, run_L in zip(shards, runs, strict=True):
        begin, end = _whole_groups(shard, of)
        keep_L = torch.ones_like(run_L, dtype=torch.bool)
        if begin < end:
            keep_L[begin:end] = _keep(run_L[begin:end].abs().view(-1, of), num_remove).view(-1)
        keep.append(keep_L)
        cuts = [(0, begin), (end, shard.numel)] if begin < end else [(0, shard.numel)]
        edges.append([(a, b) for a, b in cuts if a < b])
        shown += [(shard.index, shard.start + a, run_L[a:b].abs().tolist()) for a, b in edges[-1]]
    split: dict[tuple[int, int], list[float]] = {}
    for index, start, values in (edge for of_rank in ranks.gather(shown) for edge in of_rank):
        for place, value in enumerate(values, start):
            split.setdefault((index, place // of), [0.0] * of)[place % of] = value
    decided = {key: _keep(torch.tensor([values]), num_remove)[0] for key, values in split.items()}
    for shard, keep_L, cuts in zip(shards, keep, edges, strict=True):
        for a, b in cuts:
            places = range(shard.start + a, shard.start + b)
            bits = [bool(decided[shard.index, place // of][place % of]) for place in places]
            keep_L[a:b] = torch.tensor(bits, device=keep_L.device)
    return keep


def _whole_groups(shard: Shard, of: int) -> tuple[int, int]:
    """The part of a run that is whole groups, counted from the run's begin; empty (begin >= end) if there is none."""
    begin = -shard.start % of
    return begin, (shard.start + shard.numel) // of * of - shard.start


def _keep(values_GM: torch.Tensor, num_remove: int) -> torch.Tensor:
    """True for all but the ``num_remove`` smallest of each group."""
    size = values_GM.shape[1]
    if size > 8:
        order_GM = values_GM.argsort(dim=1, stable=True)
        keep_GM = torch.ones_like(values_GM, dtype=torch.bool)
        return keep_GM.scatter_(1, order_GM[:, :num_remove], False)
    # Each pair is compared once: for small groups an order of magnitude faster than sorting them.
    columns = [column.contiguous() for column in values_GM.unbind(1)]
    smaller = [torch.zeros_like(columns[0], dtype=torch.uint8) for _ in columns]
    for i in range(size):
        for j in range(i + 1, size):
            first_goes = columns[i] <= columns[j]
            smaller[j] += first_goes
            smaller[i] += ~first_goes
    return torch.stack([count >= num_remove for count in smaller], dim=1)
