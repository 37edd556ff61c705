"""Exact selection of the k smallest scores over shards: the same answer for every number of ranks.

No rank gathers weights. The bit pattern of a non-negative fp32 number, read as an integer, orders like the number
itself, so the k-th smallest value is found by two histograms over those bits (2^16 buckets of the upper half, then
2^16 of the lower half inside one bucket), each added over the ranks: communication is 1 MiB per tensor or pool,
whatever the model's size. Where one process holds the whole pool on a CPU, a partition of those integers finds the
same value in half the time (4 bytes per weight of the pool meanwhile). Of the values equal to the k-th smallest, as
many as are still needed are removed in the order of their global position (weight, then element), so that exactly k
go.
Letters: L elements of a local run, B buckets.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from jobs.errors import PruningError
from jobs.ranks import Ranks

_HALF = 16
_BUCKETS = 1 << _HALF
_UPPER = 1 if sys.byteorder == "little" else 0


@dataclass(frozen=True)
class Scores:
    """Scores of this rank's run of one weight.

    Attributes:
        name: Weight's name, for messages.
        index: Order of the weight among all (ties go by index, then start).
        start: First element of the run in the weight.
        values_L: Non-negative fp32, 1-D; a smaller score is removed first.
        replicated: All ranks hold the same whole weight; then nothing is added over ranks.
    """

    name: str
    index: int
    start: int
    values_L: torch.Tensor
    replicated: bool


def count_to_remove(sparsity: float, numel: int) -> int:
    """How many of ``numel`` weights a sparsity removes: the floor, as published.

    A product that is whole but for the rounding of floats counts as whole (0.29 * 100 is 28.999999999999996).
    """
    exact = sparsity * numel
    nearest = round(exact)
    # The schedule's arithmetic loses a few of the 53 bits; 1e-12 is far above that, far below one weight in a billion.
    return nearest if abs(exact - nearest) < 1e-12 * max(1.0, exact) else int(exact)


def keep_largest(scores: Sequence[Scores], num_remove: int, ranks: Ranks) -> list[torch.Tensor]:
    """Choose which elements stay when the ``num_remove`` smallest of the pool go.

    Args:
        scores: This rank's runs, every weight of the pool once (an empty run where it owns nothing); on every rank in
            the same order.
        num_remove: k, over all ranks.

    Returns:
        One bool tensor per run (True keeps), shaped like its values.

    Raises:
        PruningError: A score is NaN or infinite.
    """
    refuse_not_finite(scores, ranks)
    if num_remove <= 0:
        return [torch.ones_like(s.values_L, dtype=torch.bool) for s in scores]
    bits = [s.values_L.contiguous().view(torch.int32) for s in scores]
    shared = Ranks(0, 1, ranks.device) if all(s.replicated for s in scores) else ranks
    alone_on_cpu = shared.world_size == 1 and all(b.device.type == "cpu" for b in bits)
    find = _threshold_by_partition if alone_on_cpu else _threshold_by_histograms
    threshold, num_up_to = find(bits, num_remove, shared)
    keep = [b > threshold for b in bits]
    if num_up_to > num_remove:
        _keep_late_ties(keep, [b == threshold for b in bits], scores, num_up_to - num_remove, shared)
    return keep


def _threshold_by_partition(bits: Sequence[torch.Tensor], rank_wanted: int, _ranks: Ranks) -> tuple[int, int]:
    """Return the ``rank_wanted``-th smallest (1-based) of a pool that is all here, and how many are not larger."""
    pool_N = np.concatenate([b.numpy() for b in bits])
    pool_N.partition(rank_wanted - 1)
    threshold = int(pool_N[rank_wanted - 1])
    # What lies before the place is not larger; equals may also lie after it.
    return threshold, rank_wanted + int(np.count_nonzero(pool_N[rank_wanted:] == threshold))


def _threshold_by_histograms(bits: Sequence[torch.Tensor], rank_wanted: int, ranks: Ranks) -> tuple[int, int]:
    """The same over all ranks' runs (collective)."""
    device = bits[0].device
    upper_halves = [_upper_half(b) for b in bits]
    upper, below, _ = _find_bucket(_histogram(upper_halves, device, ranks), rank_wanted)
    lower_halves = [b[half == upper] & (_BUCKETS - 1) for b, half in zip(bits, upper_halves, strict=True)]
    lower, below_inside, num_equal = _find_bucket(_histogram(lower_halves, device, ranks), rank_wanted - below)
    return (upper << _HALF) | lower, below + below_inside + num_equal


def _upper_half(bits_L: torch.Tensor) -> torch.Tensor:
    """The upper 16 bits as int16, never negative here; a quarter of the memory traffic of a shift in int64."""
    if bits_L.numel() <= 1:  # whose stride may be any, which a view of another width refuses
        return (bits_L >> _HALF).to(torch.int16)
    return bits_L.view(torch.int16)[_UPPER::2].contiguous()


def _histogram(values: Sequence[torch.Tensor], device: torch.device, ranks: Ranks) -> torch.Tensor:
    total_B = torch.zeros(_BUCKETS, dtype=torch.int64, device=device)
    for value_L in values:
        total_B += torch.bincount(value_L, minlength=_BUCKETS)
    return ranks.sum(total_B)


def _find_bucket(counts_B: torch.Tensor, rank_wanted: int) -> tuple[int, int, int]:
    """Return the bucket of the ``rank_wanted``-th smallest (1-based), how many lie below it, and how many in it."""
    cumulated_B = counts_B.cumsum(0)
    bucket = int(torch.searchsorted(cumulated_B, torch.tensor(rank_wanted, device=counts_B.device)))
    inside = int(counts_B[bucket])
    return bucket, int(cumulated_B[bucket]) - inside, inside


def _keep_late_ties(
    keep: list[torch.Tensor],
    ties: list[torch.Tensor],
    scores: Sequence[Scores],
    num_keep: int,
    ranks: Ranks,
) -> None:
    """Keep the last ``num_keep`` ties in global order, in place (collective)."""
    own = [(s.index, s.start, int(torch.count_nonzero(t))) for s, t in zip(scores, ties, strict=True)]
    everyone = sorted(
        (index, start, rank, count)
        for rank, runs in enumerate(ranks.gather(own))
        for index, start, count in runs
        if count
    )
    quota: dict[tuple[int, int, int], int] = {}
    left = sum(count for *_, count in everyone) - num_keep
    for index, start, rank, count in everyone:
        quota[index, start, rank] = min(left, count)
        left -= min(left, count)
    for kept, tie, score in zip(keep, ties, scores, strict=True):
        removed = quota.get((score.index, score.start, ranks.rank), 0)
        positions = tie.nonzero().view(-1)[removed:]
        kept[positions] = True


def refuse_not_finite(scores: Sequence[Scores], ranks: Ranks) -> None:
    """Refuse scores that have no order (collective).

    Raises:
        PruningError: With the weights that are NaN or infinite.
    """
    bad = [s.name for s in scores if s.values_L.numel() and not _is_finite(s.values_L)]
    names = sorted({name for of_rank in ranks.gather(bad) for name in of_rank})
    if names:
        raise PruningError(
            f"weights are NaN or infinite in {', '.join(names[:5])}{' …' if len(names) > 5 else ''}; training diverged "
            "before this mask update: lower train.lr.peak, or use engine.precision fp32"
        )


def _is_finite(values_L: torch.Tensor) -> bool:
    """NaN and infinity show in the extremes: one pass that writes nothing."""
    return all(math.isfinite(float(extreme)) for extreme in torch.aminmax(values_L))
