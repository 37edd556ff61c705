"""Exact selection of the k smallest scores over shards: the same answer for every number of ranks.

No rank gathers weights. The bit pattern of a non-negative fp32 number, read as an integer, orders like the number
itself. A random sample of at most 2^16 elements gives two of these integers that almost surely have the k-th smallest
between them; one pass counts what lies below and takes out what lies between, about one in 100 of a large model. Among
those few the k-th is found by a partition where one process has them all, else by two histograms (2^16 buckets of the
upper half of the bits, then of the lower half inside one bucket), added over the ranks. If the sample misled, the pass
is repeated with bounds that are certain, so the answer never depends on it. Communication is below 2 MB per tensor or
pool, whatever the model's size; memory is the masks and about a hundredth of the weights. Of the values equal to the
k-th smallest, as many as are still needed are removed in the order of their global position (weight, then element), so
that exactly k go.
Letters: L elements of a local run, P of a piece, B buckets.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from jobs.errors import PruningError
from jobs.ranks import Ranks

_HALF = 16
_BUCKETS = 1 << _HALF
_UPPER = 1 if sys.byteorder == "little" else 0
_MAGNITUDE = 0x7FFFFFFF
"""All bits of an fp32 number but its sign."""
_INFINITE = 0x7F800000
_MAX_SAMPLE = 1 << 16
_DEVIATIONS = 4.0
"""Half the width of the bracket in standard deviations of the sample's quantile; missed once in 16,000 times."""
_PIECE = 1 << 16
"""Elements looked at together on a CPU: what fits its cache."""


@dataclass(frozen=True)
class Scores:
    """Scores of this rank's run of one weight.

    Attributes:
        name: Weight's name, for messages.
        index: Order of the weight among all (ties go by index, then start).
        start: First element of the run in the weight.
        values_L: fp32, 1-D; the score is the absolute value, a smaller one is removed first.
        replicated: All ranks hold the same whole weight; then nothing is added over ranks.
    """

    name: str
    index: int
    start: int
    values_L: torch.Tensor
    replicated: bool


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
    shared = Ranks(0, 1, ranks.device) if all(s.replicated for s in scores) else ranks
    bits = [s.values_L.contiguous().view(torch.int32) for s in scores]
    threshold, num_up_to = _threshold(bits, num_remove, shared)
    keep = [_above(b, threshold) for b in bits]
    if num_up_to > num_remove:
        _keep_late_ties(keep, bits, threshold, scores, num_up_to - num_remove, shared)
    return keep


def _threshold(bits: Sequence[torch.Tensor], wanted: int, ranks: Ranks) -> tuple[int, int]:
    """Return the ``wanted``-th smallest magnitude (1-based) of the pool, and how many are not larger (collective)."""
    low, high = _bracket(bits, wanted, ranks)
    while True:
        own = [_cut(b, low, high) for b in bits]
        inside = [inside for _, inside in own]
        up_to_low, num_inside = _total([sum(n for n, _ in own), sum(i.numel() for i in inside)], ranks)
        if up_to_low < wanted <= up_to_low + num_inside:
            find = _find_by_partition if _alone_on_cpu(bits, ranks) else _find_by_histograms
            value, num_up_to = find(inside, wanted - up_to_low, ranks)
            return value, up_to_low + num_up_to
        # A bound itself, as where many are equal; else the sample misled, and bounds that are certain follow.
        bound = low if wanted <= up_to_low else high
        (at_bound,) = _total([sum(_num_equal(b, bound) for b in bits)], ranks)
        if bound == low and wanted > up_to_low - at_bound:
            return low, up_to_low
        if bound == high and wanted <= up_to_low + num_inside + at_bound:
            return high, up_to_low + num_inside + at_bound
        low, high = (-1, low) if bound == low else (high, _INFINITE)


def _bracket(bits: Sequence[torch.Tensor], wanted: int, ranks: Ranks) -> tuple[int, int]:
    """Two integers that almost surely have the ``wanted``-th smallest between them, from a sample (collective)."""
    (total,) = _total([sum(b.numel() for b in bits)], ranks)
    # With n^(2/3) of n sampled, sampling costs about as much as what is left between the bounds.
    size = min(_MAX_SAMPLE, round(total ** (2 / 3)))
    if total <= 4 * size:
        return -1, _INFINITE
    rng = np.random.default_rng(0)
    drawn = [
        b[torch.from_numpy(rng.integers(b.numel(), size=-(-b.numel() * size // total))).to(b.device)].cpu()
        for b in bits
        if b.numel()
    ]
    own = (torch.cat(drawn) if drawn else torch.empty(0, dtype=torch.int32)).bitwise_and_(_MAGNITUDE).numpy()
    sample = np.sort(np.concatenate(ranks.gather(own)))
    share = (wanted - 0.5) / total
    margin = _DEVIATIONS * math.sqrt(sample.size * share * (1 - share)) + 2
    first, last = math.floor(sample.size * share - margin), math.ceil(sample.size * share + margin)
    low = int(sample[first]) if first >= 0 else -1
    high = int(sample[last]) if last < sample.size else _INFINITE
    return low, max(high, low + 1)


def _cut(bits_L: torch.Tensor, low: int, high: int) -> tuple[int, torch.Tensor]:
    """Count the magnitudes up to ``low``, and take out those between ``low`` and ``high`` (both exclusive)."""
    if bits_L.device.type != "cpu":
        magnitudes_L = _magnitudes(bits_L)
        up_to_low_L = magnitudes_L <= low
        return int(torch.count_nonzero(up_to_low_L)), magnitudes_L[up_to_low_L.logical_xor_(magnitudes_L < high)]
    # NumPy, three times as fast here as torch: its comparisons and counts of bools are vectorised.
    up_to_low, inside = 0, []
    low_P, high_P = np.empty(_PIECE, bool), np.empty(_PIECE, bool)
    for _, piece_P in _pieces(bits_L):
        below_P = np.less_equal(piece_P, low, out=low_P[: piece_P.size])
        up_to_low += int(np.count_nonzero(below_P))
        inside.append(piece_P[np.not_equal(below_P, np.less(piece_P, high, out=high_P[: piece_P.size]), out=below_P)])
    return up_to_low, torch.from_numpy(np.concatenate(inside)) if inside else bits_L


def _above(bits_L: torch.Tensor, threshold: int) -> torch.Tensor:
    """Whether each magnitude is above the threshold."""
    if bits_L.device.type != "cpu":
        return _magnitudes(bits_L) > threshold
    above_L = np.empty(bits_L.shape, bool)
    for begin, piece_P in _pieces(bits_L):
        np.greater(piece_P, threshold, out=above_L[begin : begin + piece_P.size])
    return torch.from_numpy(above_L)


def _num_equal(bits_L: torch.Tensor, value: int) -> int:
    """How many magnitudes equal a value."""
    if bits_L.device.type != "cpu":
        return int(torch.count_nonzero(_magnitudes(bits_L) == value))
    return sum(int(np.count_nonzero(piece_P == value)) for _, piece_P in _pieces(bits_L))


def _keep_equal(keep_L: torch.Tensor, bits_L: torch.Tensor, value: int, skip: int) -> None:
    """Keep the elements whose magnitude equals a value, but for the first ``skip`` of them; in place.

    Piece by piece, for a pool may be full of equals: the zeros of a sparse model, whose places take 8 bytes each.
    """
    if bits_L.device.type != "cpu":
        keep_L[(_magnitudes(bits_L) == value).nonzero().view(-1)[skip:]] = True
        return
    whole_L = keep_L.numpy()
    for begin, piece_P in _pieces(bits_L):
        places = np.flatnonzero(piece_P == value)
        whole_L[places[skip:] + begin] = True
        skip = max(0, skip - places.size)


def _magnitudes(bits_L: torch.Tensor) -> torch.Tensor:
    return bits_L & _MAGNITUDE


def _pieces(bits_L: torch.Tensor) -> Iterator[tuple[int, npt.NDArray[np.int32]]]:
    """Magnitudes piece by piece, each in the same buffer, with the place of its first."""
    buffer_P = np.empty(_PIECE, np.int32)
    whole_L = bits_L.numpy()
    for begin in range(0, whole_L.size, _PIECE):
        part_P = whole_L[begin : begin + _PIECE]
        yield begin, np.bitwise_and(part_P, _MAGNITUDE, out=buffer_P[: part_P.size])


def _total(counts: list[int], ranks: Ranks) -> list[int]:
    return [int(n) for n in ranks.sum(torch.tensor(counts, dtype=torch.int64, device=ranks.device)).tolist()]


def _alone_on_cpu(bits: Sequence[torch.Tensor], ranks: Ranks) -> bool:
    return ranks.world_size == 1 and all(b.device.type == "cpu" for b in bits)


def _find_by_partition(found: Sequence[torch.Tensor], wanted: int, _ranks: Ranks) -> tuple[int, int]:
    """Return the ``wanted``-th smallest (1-based) of integers that are all here, and how many are not larger."""
    pool_N = np.concatenate([f.numpy() for f in found])
    pool_N.partition(wanted - 1)
    value = int(pool_N[wanted - 1])
    # What lies before the place is not larger; equals may also lie after it.
    return value, wanted + int(np.count_nonzero(pool_N[wanted:] == value))


def _find_by_histograms(found: Sequence[torch.Tensor], wanted: int, ranks: Ranks) -> tuple[int, int]:
    """The same over all ranks' integers (collective)."""
    device = ranks.device
    upper_halves = [_upper_half(f) for f in found]
    upper, below, _ = _find_bucket(_histogram(upper_halves, device, ranks), wanted)
    lower_halves = [f[half == upper] & (_BUCKETS - 1) for f, half in zip(found, upper_halves, strict=True)]
    lower, below_inside, num_equal = _find_bucket(_histogram(lower_halves, device, ranks), wanted - below)
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
    keep: Sequence[torch.Tensor],
    bits: Sequence[torch.Tensor],
    threshold: int,
    scores: Sequence[Scores],
    num_keep: int,
    ranks: Ranks,
) -> None:
    """Keep the last ``num_keep`` of those equal to the threshold in global order, in place (collective)."""
    own = [(s.index, s.start, _num_equal(b, threshold)) for s, b in zip(scores, bits, strict=True)]
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
    for keep_L, bits_L, (index, start, count) in zip(keep, bits, own, strict=True):
        if count > (goes := quota.get((index, start, ranks.rank), 0)):
            _keep_equal(keep_L, bits_L, threshold, goes)


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
    """NaN and infinity show in the largest magnitude."""
    bits_L = values_L.contiguous().view(torch.int32)
    if bits_L.device.type != "cpu":
        return int(_magnitudes(bits_L).max()) < _INFINITE
    return all(int(piece_P.max()) < _INFINITE for _, piece_P in _pieces(bits_L))
