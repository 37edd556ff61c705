"""Exact selection of the k smallest scores over shards: the same answer for every number of ranks.

No rank gathers weights. The bit pattern of a non-negative fp32 number, read as an integer, orders like the number itself, so the
k-th smallest value is found by two histograms over those bits (2^16 buckets of the upper half, then 2^16 of the lower half inside one
bucket), each added over the ranks: communication is 1 MiB per tensor or pool, whatever the model's size. Of the values equal to the k-th
smallest, as many as are still needed are removed in the order of their global position (weight, then element), so that exactly k go.
Letters: L elements of a local run, B buckets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from jobs.errors import PruningError
from jobs.ranks import Ranks

_HALF = 16
_BUCKETS = 1 << _HALF


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
    # The schedule's arithmetic loses a few of the 53 bits; 1e-12 is far above that and far below one weight in a billion.
    return nearest if abs(exact - nearest) < 1e-12 * max(1.0, exact) else int(exact)


def keep_largest(scores: Sequence[Scores], num_remove: int, ranks: Ranks) -> list[torch.Tensor]:
    """Choose which elements stay when the ``num_remove`` smallest of the pool go.

    Args:
        scores: This rank's runs, every weight of the pool once (an empty run where it owns nothing); on every rank in the same order.
        num_remove: k, over all ranks.

    Returns:
        One bool tensor per run (True keeps), shaped like its values.

    Raises:
        PruningError: A score is NaN or infinite.
    """
    _check_finite(scores, ranks)
    if num_remove <= 0:
        return [torch.ones_like(s.values_L, dtype=torch.bool) for s in scores]
    bits = [s.values_L.contiguous().view(torch.int32) for s in scores]
    shared = Ranks(0, 1, ranks.device) if all(s.replicated for s in scores) else ranks
    device = bits[0].device
    upper, below = _find_bucket(_histogram([b >> _HALF for b in bits], device, shared), num_remove)
    lower_bits = [(b & (_BUCKETS - 1))[(b >> _HALF) == upper] for b in bits]
    lower, below_inside = _find_bucket(_histogram(lower_bits, device, shared), num_remove - below)
    threshold = (upper << _HALF) | lower
    num_ties_to_remove = num_remove - below - below_inside
    keep = [b > threshold for b in bits]
    _keep_late_ties(keep, [b == threshold for b in bits], scores, num_ties_to_remove, shared)
    return keep


def _histogram(values: Sequence[torch.Tensor], device: torch.device, ranks: Ranks) -> torch.Tensor:
    total_B = torch.zeros(_BUCKETS, dtype=torch.int64, device=device)
    for value_L in values:
        total_B += torch.bincount(value_L.long(), minlength=_BUCKETS)
    return ranks.sum(total_B)


def _find_bucket(counts_B: torch.Tensor, rank_wanted: int) -> tuple[int, int]:
    """Return the bucket that holds the ``rank_wanted``-th smallest (1-based), and how many lie in the buckets below it."""
    cumulated_B = counts_B.cumsum(0)
    bucket = int(torch.searchsorted(cumulated_B, torch.tensor(rank_wanted, device=counts_B.device)))
    return bucket, int(cumulated_B[bucket] - counts_B[bucket])


def _keep_late_ties(
    keep: list[torch.Tensor],
    ties: list[torch.Tensor],
    scores: Sequence[Scores],
    num_remove: int,
    ranks: Ranks,
) -> None:
    """Keep the ties that come after the first ``num_remove`` in global order, in place."""
    own = [(s.index, s.start, int(t.sum())) for s, t in zip(scores, ties, strict=True)]
    everyone = sorted(
        (index, start, rank, count)
        for rank, runs in enumerate(ranks.gather(own))
        for index, start, count in runs
        if count
    )
    quota: dict[tuple[int, int, int], int] = {}
    left = num_remove
    for index, start, rank, count in everyone:
        quota[index, start, rank] = min(left, count)
        left -= min(left, count)
    for kept, tie, score in zip(keep, ties, scores, strict=True):
        removed = quota.get((score.index, score.start, ranks.rank), 0)
        positions = tie.nonzero().view(-1)[removed:]
        kept[positions] = True


def _check_finite(scores: Sequence[Scores], ranks: Ranks) -> None:
    bad = [s.name for s in scores if not torch.isfinite(s.values_L).all()]
    names = sorted({name for of_rank in ranks.gather(bad) for name in of_rank})
    if names:
        raise PruningError(
            f"weights are NaN or infinite in {', '.join(names[:5])}{' …' if len(names) > 5 else ''}; training diverged "
            "before this mask update: lower train.lr.peak, or use engine.precision fp32"
        )
