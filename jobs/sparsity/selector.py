"""From scores to masks: pattern and scope of a method, checked against the model before the first step.

    unstructured      selection.keep_largest over each pool            pools: a tensor, a group of tensors, or all
    N:M               n_of_m.keep_in_groups                            every M weights alone
    blocks, rows …    tiles.group_scores, then keep_largest on groups  pools: a tiling, a group of tilings, or all

A method hands over a score per weight and gets a mask per weight; it does not know which pattern it got.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from prunus.configs.values.patterns import NOfM, count_to_remove, parse_pattern
from prunus.configs.values.selection import Selection
from prunus.jobs.engine.shards import Shard
from prunus.jobs.errors import PruningError
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity import n_of_m
from prunus.jobs.sparsity.select_smallest import Scores, keep_largest, refuse_not_finite
from prunus.jobs.sparsity.tiles import Tiling, group_scores, run_of, tilings

T = TypeVar("T")


class Selector:
    """Chooses masks by a method's pattern and scope.

    Args:
        selection: What goes together and who competes.
        final_sparsity: Where the method ends: what N:M needs to know on its way, and what must not be nothing.
        shards: This rank's runs, every prunable weight once, in the model's order.
        num_heads: Attention heads of the model; None if it has none.

    Raises:
        PruningError: Pattern or scope do not fit the weights, or the target removes nothing.
    """

    def __init__(
        self,
        selection: Selection,
        final_sparsity: float,
        shards: Sequence[Shard],
        ranks: Ranks,
        num_heads: int | None = None,
    ) -> None:
        self._selection = selection
        self._final_sparsity = final_sparsity
        self._shards = list(shards)
        self._ranks = ranks
        self._n_of_m: NOfM | None = None
        self._tiles: list[list[Tiling]] = []
        self._pools: list[list[Shard]] = []
        pattern = parse_pattern(selection.pattern)
        if pattern is None:
            self._pools = _pools(self._shards, selection, lambda shard: shard.name)
        elif isinstance(pattern, NOfM):
            n_of_m.refuse_shapes(self._shards, pattern.of)
            self._n_of_m = pattern
        else:
            cut = tilings(pattern, self._shards, num_heads)
            self._tiles = _pools(cut, selection, lambda tiling: self._shards[tiling.members[0].index].name)
            for pool in self._tiles:
                self._refuse_nothing(pool)

    def select(
        self,
        values: Sequence[torch.Tensor],
        sparsity: float,
        hidden: Sequence[torch.Tensor] | None = None,
        *,
        signed: bool = False,
    ) -> Iterator[torch.Tensor]:
        """Choose which weights stay (collective): one bool tensor per run (True keeps), in the shards' order.

        What is given last may be changed when the next is asked for, and not before: a pool is chosen at its first run.

        Args:
            values: fp32 of each shard's run, in the shards' order; the score is the absolute value, or the value.
            sparsity: Share to remove of each pool, in [0, 1): of weights, or of groups.
            hidden: Values that compete where ``values`` are 0, and are 0 elsewhere.
            signed: Values are scores as they are, negative ones are the smallest; of single weights only.

        Raises:
            PruningError: A score is NaN or infinite.
        """
        runs = [None] * len(self._shards) if hidden is None else hidden
        scores = [
            Scores(s.name, s.index, s.start, run_L, s.replicated, hidden_L, signed)
            for s, run_L, hidden_L in zip(self._shards, values, runs, strict=True)
        ]
        if self._pools:
            yield from self._select_weights(scores, sparsity)
            return
        assert not signed, "groups are scored by magnitude"
        refuse_not_finite(scores, self._ranks)
        if hidden is not None:
            values = [run_L + hidden_L for run_L, hidden_L in zip(values, hidden, strict=True)]
        if self._n_of_m is None:
            yield from self._select_tiles(values, sparsity)
            return
        num_remove = self._n_of_m.num_removed(sparsity, self._final_sparsity)
        yield from n_of_m.keep_in_groups(self._shards, values, num_remove, self._n_of_m.of, self._ranks)

    def _select_weights(self, scores: list[Scores], sparsity: float) -> Iterator[torch.Tensor]:
        if self._selection.scope == "erk":
            counts = erk_counts([s.shape for s in self._shards], sparsity)
        else:
            counts = [count_to_remove(sparsity, sum(s.global_numel for s in pool)) for pool in self._pools]
        place = {shard.index: i for i, shard in enumerate(self._shards)}
        pools: dict[int, tuple[list[int], int]] = {}
        for pool, count in zip(self._pools, counts, strict=True):
            places = [place[shard.index] for shard in pool]
            pools |= dict.fromkeys(places, (places, count))
        keep: dict[int, torch.Tensor] = {}
        for i, (places, count) in sorted(pools.items()):
            if i not in keep:
                chosen = keep_largest([scores[j] for j in places], count, self._ranks)
                keep |= zip(places, chosen, strict=True)
            yield keep.pop(i)

    def _select_tiles(self, values: Sequence[torch.Tensor], sparsity: float) -> list[torch.Tensor]:
        keep: list[torch.Tensor] = [torch.empty(0)] * len(self._shards)
        alone = replace(self._ranks, rank=0, world_size=1)  # every rank has the scores of all groups
        for pool in self._tiles:
            scores = [
                Scores(tiling.name, i, 0, values_G, replicated=True)
                for i, (tiling, values_G) in enumerate(
                    zip(pool, group_scores(pool, self._shards, values, self._ranks, self._selection.norm), strict=True)
                )
            ]
            count = count_to_remove(sparsity, sum(tiling.num_groups for tiling in pool))
            for tiling, keep_G in zip(pool, keep_largest(scores, count, alone), strict=True):
                for member in tiling.members:
                    keep[member.index] = run_of(keep_G, self._shards[member.index], member)
        return keep

    def _refuse_nothing(self, pool: list[Tiling]) -> None:
        total = sum(tiling.num_groups for tiling in pool)
        target = self._final_sparsity
        if target and count_to_remove(target, total) == 0:
            remedies = [f"raise it to {math.ceil(1e4 / total) / 1e4:.4f} or more"] if total > 1 else []
            remedies += ["use scope: global"] if self._selection.scope != "global" else []
            raise PruningError(
                f"final_sparsity {target} of the {total} groups of {pool[0].name} removes none of them; "
                + (", or ".join(remedies) or "use another pattern")
            )


def erk_counts(shapes: Sequence[tuple[int, ...]], sparsity: float) -> list[int]:
    """How many weights go from each matrix so that the kept share is in proportion to (R + C) / (R C).

    The Erdos-Renyi kernel of Evci et al., "Rigging the Lottery" (arXiv 1911.11134), section 3, without the published
    rounding of each layer: the counts add up to what the sparsity asks of all. A matrix whose share would pass 1 stays
    whole, and the others carry its part. Halves of a weight go to the largest remainders, then to the first matrices.

    Args:
        shapes: Of every matrix.
        sparsity: Of all weights together, in [0, 1).
    """
    sizes = [int(torch.Size(shape).numel()) for shape in shapes]
    raw = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
    num_remove = count_to_remove(sparsity, sum(sizes))
    dense: set[int] = set()
    while True:
        sparse = [i for i in range(len(sizes)) if i not in dense]
        num_keep = sum(sizes[i] for i in sparse) - num_remove
        share = num_keep / sum(raw[i] * sizes[i] for i in sparse) if sparse else 0.0
        over = {i for i in sparse if share * raw[i] > 1.0}
        if not over:
            break
        dense |= over
    exact = [0.0 if i in dense else sizes[i] * (1.0 - share * raw[i]) for i in range(len(sizes))]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: num_remove - sum(counts)]:
        counts[i] += 1
    return counts


def _pools(items: Sequence[T], selection: Selection, name_of: Callable[[T], str]) -> list[list[T]]:
    """Who competes with whom."""
    if selection.scope == "global":
        return [list(items)]
    if selection.group_by is None:
        return [[item] for item in items]
    groups: dict[str, list[T]] = {}
    for item in items:
        found = re.search(selection.group_by, name_of(item))
        if found is None or found[1] is None:
            raise PruningError(
                f"method.group_by {selection.group_by!r} names no group for {name_of(item)}; let it match every "
                "prunable weight, or leave some out with method.prunable.exclude"
            )
        groups.setdefault(found[1], []).append(item)
    return list(groups.values())
