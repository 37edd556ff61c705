"""Exact selection of the k smallest scores over shards: the same answer for every number of ranks.

No rank gathers weights. The bit pattern of a non-negative fp32 number, read as an integer, orders like the number
itself; for signed scores the integer is negated where the number is negative. A sample of at most 2^16 elements gives
two of these integers that almost surely have the k-th smallest between them. One pass over the weights then decides
all others: those below go, those above stay, and those between, about one in 100 of a large model, are taken out with
their places. Among those few the k-th is found by a partition where one process has them all, else by two histograms
(2^16 buckets of the upper half of the bits, then of the lower half inside one bucket), added over the ranks. If the
sample misled, the pass is repeated with wider bounds, which are certain in the end, so the answer never depends on
it. Communication is below 2 MB per tensor or pool, whatever the model's size; memory is the masks and about a
thirtieth of the weights. Of the values equal to the k-th smallest, as many as are still needed are removed in the
order of their global position (weight, then element), so that exactly k go.
Letters: L elements of a local run, P of a piece, I between the bounds, B buckets.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from prunus.configs.values.wording import listed
from prunus.jobs.errors import PruningError
from prunus.jobs.ranks import Ranks

_HALF = 16
_BUCKETS = 1 << _HALF
_MAGNITUDE = 0x7FFFFFFF
"""All bits of an fp32 number but its sign."""
_INFINITE = 0x7F800000
_LOWEST = -_INFINITE
"""Below the key of every finite number."""
_SHIFT = 1 << 31
"""Makes signed keys non-negative."""
_MAX_SAMPLE = 1 << 16
_LINE = 16
"""Elements that lie together in the sample: 64 bytes."""
_DEVIATIONS = 2.5
"""Half the distance of the bounds in standard deviations of the sample's quantile; missed once in 80 times."""
_WIDER = 8.0
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
        hidden_L: Values that compete where ``values_L`` is 0, and are 0 elsewhere; None if there are none.
        signed: The score is the value itself; the most negative one is removed first. Not with ``hidden_L``.
    """

    name: str
    index: int
    start: int
    values_L: torch.Tensor
    replicated: bool
    hidden_L: torch.Tensor | None = None
    signed: bool = False


@dataclass(frozen=True)
class _Cut:
    """What one pass over a run finds out.

    Attributes:
        keep_L: Whether the key is not below the upper bound; for what lies between the bounds decided later.
        up_to_low: How many keys are not above the lower bound.
        places_I: Where those between the bounds are (both exclusive), in order.
        inside_I: Their keys.
    """

    keep_L: torch.Tensor
    up_to_low: int
    places_I: torch.Tensor
    inside_I: torch.Tensor


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
    if num_remove <= 0:
        refuse_not_finite(scores, ranks)
        return [torch.ones_like(s.values_L, dtype=torch.bool) for s in scores]
    shared = Ranks(0, 1, ranks.device) if all(s.replicated for s in scores) else ranks
    sample, total = _sample(scores, shared)
    deviations = _DEVIATIONS
    while True:
        low, high = _bounds(sample, (num_remove - 0.5) / total, deviations)
        cuts, largest = _cut_all(scores, low, high)
        if deviations == _DEVIATIONS:
            _refuse(scores, largest, ranks)
        if _settle(scores, cuts, (low, high), num_remove, shared):
            return [cut.keep_L for cut in cuts]
        deviations *= _WIDER


def _settle(
    scores: Sequence[Scores], cuts: Sequence[_Cut], bounds: tuple[int, int], num_remove: int, ranks: Ranks
) -> bool:
    """Decide what lies between the bounds, in place (collective); False if the ``num_remove``-th is beyond them."""
    low, high = bounds
    up_to_low, num_inside = _total([sum(c.up_to_low for c in cuts), sum(c.inside_I.numel() for c in cuts)], ranks)
    below_high = up_to_low + num_inside
    if up_to_low < num_remove <= below_high:
        find = _find_by_partition if _alone_on_cpu(cuts, ranks) else _find_by_histograms
        threshold, up_to = find([cut.inside_I for cut in cuts], num_remove - up_to_low, ranks)
        for cut in cuts:
            _write(cut.keep_L, cut.places_I, cut.inside_I > threshold)
        if (num_keep := up_to_low + up_to - num_remove) > 0:
            equal = [cut.places_I[cut.inside_I == threshold] for cut in cuts]
            quota = _quota(scores, [e.numel() for e in equal], num_keep, ranks)
            for cut, places, num_go in zip(cuts, equal, quota, strict=True):
                cut.keep_L[places[num_go:]] = True
        return True
    if num_remove <= up_to_low:
        for cut in cuts:
            cut.keep_L[cut.places_I] = True
        if num_remove == up_to_low:
            return True
    # A bound itself, as where many are equal; else the sample misled.
    bound = low if num_remove < up_to_low else high
    own = [_num_equal(s, bound) for s in scores]
    (at_bound,) = _total([sum(own)], ranks)
    num_keep = (up_to_low if bound == low else below_high + at_bound) - num_remove
    if not 0 <= num_keep <= at_bound:
        return False
    for score, cut, num_go in zip(scores, cuts, _quota(scores, own, num_keep, ranks), strict=True):
        _keep_equal(cut.keep_L, score, bound, num_go)
    return True


def _sample(scores: Sequence[Scores], ranks: Ranks) -> tuple[npt.NDArray[np.int32], int]:
    """Some keys of the pool, sorted; none of a pool so small that all can be between the bounds (collective).

    They are taken line by line of memory at even distances, ten times as fast as one by one at random. Neighbours that
    are alike, or weights that repeat at this distance, may mislead, which costs a pass.

    Returns:
        The sample, and the elements of the pool.
    """
    (total,) = _total([sum(s.values_L.numel() for s in scores)], ranks)
    # With n^(2/3) of n sampled, sampling costs about as much as what is left between the bounds.
    size = min(_MAX_SAMPLE, round(total ** (2 / 3)))
    if total <= 4 * size:
        return np.empty(0, np.int32), total
    distance = total // size | 1  # odd, so that rows of even length are not met in a few columns only
    passed, drawn = 0, []
    for score in scores:
        begin, passed = -passed % distance, passed + score.values_L.numel() // _LINE
        hidden = None if score.hidden_L is None else _lines(score.hidden_L, begin, distance)
        drawn.append(_keys(_lines(score.values_L, begin, distance), hidden, score.signed).cpu().numpy())
    return np.sort(np.concatenate(ranks.gather(np.concatenate(drawn)))), total


def _lines(run_L: torch.Tensor, begin: int, distance: int) -> torch.Tensor:
    whole = run_L[: run_L.numel() // _LINE * _LINE].view(-1, _LINE)
    return whole[begin::distance].reshape(-1)


def _bounds(sample: npt.NDArray[np.int32], share: float, deviations: float) -> tuple[int, int]:
    """Two integers that almost surely have the quantile ``share`` between them; certain at last, as deviations grow."""
    margin = deviations * math.sqrt(sample.size * share * (1 - share)) + 2
    first, last = math.floor(sample.size * share - margin), math.ceil(sample.size * share + margin)
    low = int(sample[first]) if first >= 0 else _LOWEST
    high = int(sample[last]) if last < sample.size else _INFINITE
    return low, max(high, low + 1)


def _cut_all(scores: Sequence[Scores], low: int, high: int) -> tuple[list[_Cut], list[int]]:
    """Cut every run; also its largest magnitude, in which NaN and infinity show."""
    found = [_cut(score, low, high) for score in scores]
    return [cut for cut, _ in found], [largest for _, largest in found]


def _cut(score: Scores, low: int, high: int) -> tuple[_Cut, int]:
    numel = score.values_L.numel()
    if score.values_L.device.type != "cpu":
        keys_L = _keys_of(score)
        keep_L, below_L = keys_L >= high, keys_L <= low
        places_I = keep_L.logical_or(below_L).logical_not_().nonzero().view(-1)
        largest = int(keys_L.abs().max()) if numel else 0
        return _Cut(keep_L, int(torch.count_nonzero(below_L)), places_I, keys_L[places_I]), largest
    # NumPy, three times as fast here as torch: its comparisons and counts of bools are vectorised.
    whole_L, below_P = np.empty(numel, bool), np.empty(min(numel, _PIECE), bool)
    up_to_low, largest, places, inside = 0, 0, [], []
    for begin, piece_P in _pieces(score):
        largest = max(largest, int(piece_P.max()), -int(piece_P.min()) if score.signed else 0)
        keep_P = np.greater_equal(piece_P, high, out=whole_L[begin : begin + piece_P.size])
        out_P = np.less_equal(piece_P, low, out=below_P[: piece_P.size])
        up_to_low += int(np.count_nonzero(out_P))
        place_P = np.flatnonzero(np.equal(keep_P, out_P, out=out_P))  # never both
        inside.append(piece_P[place_P])
        places.append((place_P + begin).astype(np.int32 if numel < 1 << 31 else np.int64))  # half the memory
    return _Cut(torch.from_numpy(whole_L), up_to_low, _join(places), _join(inside)), largest


def _join(parts: list[npt.NDArray[Any]]) -> torch.Tensor:
    """Put pieces together, and let go of them."""
    joined = torch.from_numpy(np.concatenate(parts or [np.empty(0, np.int32)]))
    parts.clear()
    return joined


def _write(keep_L: torch.Tensor, places_I: torch.Tensor, keep_I: torch.Tensor) -> None:
    if keep_L.device.type != "cpu":
        keep_L[places_I] = keep_I
    else:  # five times as fast
        keep_L.numpy()[places_I.numpy()] = keep_I.numpy()


def _num_equal(score: Scores, value: int) -> int:
    """How many keys equal a value."""
    if score.values_L.device.type != "cpu":
        return int(torch.count_nonzero(_keys_of(score) == value))
    return sum(int(np.count_nonzero(piece_P == value)) for _, piece_P in _pieces(score))


def _keep_equal(keep_L: torch.Tensor, score: Scores, value: int, skip: int) -> None:
    """Keep the elements whose key equals a value, but for the first ``skip`` of them; in place.

    Piece by piece, for a pool may be full of equals: the zeros of a sparse model, whose places take 8 bytes each.
    """
    if score.values_L.device.type != "cpu":
        places = (_keys_of(score) == value).nonzero().view(-1)
        keep_L[places[:skip]], keep_L[places[skip:]] = False, True
        return
    whole_L = keep_L.numpy()
    for begin, piece_P in _pieces(score):
        place_P, keep_P = np.flatnonzero(piece_P == value), whole_L[begin : begin + piece_P.size]
        keep_P[place_P[:skip]], keep_P[place_P[skip:]] = False, True
        skip = max(0, skip - place_P.size)


def _keys_of(score: Scores) -> torch.Tensor:
    return _keys(score.values_L, score.hidden_L, score.signed)


def _keys(values_L: torch.Tensor, hidden_L: torch.Tensor | None, signed: bool) -> torch.Tensor:
    """Integers in the order of the magnitudes, or of the values themselves (-0 is 0)."""
    bits_L = _bits(values_L) if hidden_L is None else _bits(values_L) | _bits(hidden_L)
    magnitudes_L = bits_L & _MAGNITUDE
    return torch.where(bits_L < 0, -magnitudes_L, magnitudes_L) if signed else magnitudes_L


def _bits(values_L: torch.Tensor) -> torch.Tensor:
    return values_L.detach().contiguous().view(torch.int32)


def _pieces(score: Scores) -> Iterator[tuple[int, npt.NDArray[np.int32]]]:
    """Keys piece by piece, each in the same buffer, with the place of its first."""
    whole_L = _bits(score.values_L).numpy()
    hidden_L = None if score.hidden_L is None else _bits(score.hidden_L).numpy()
    buffer_P = np.empty(min(_PIECE, whole_L.size), np.int32)
    for begin in range(0, whole_L.size, _PIECE):
        part_P = whole_L[begin : begin + _PIECE]
        if hidden_L is not None:  # of a value and a zero "or" is the value, but for the sign
            part_P = np.bitwise_or(part_P, hidden_L[begin : begin + _PIECE], out=buffer_P[: part_P.size])
        piece_P = np.bitwise_and(part_P, _MAGNITUDE, out=buffer_P[: part_P.size])
        if score.signed:
            np.negative(piece_P, out=piece_P, where=part_P < 0)
        yield begin, piece_P


def _total(counts: list[int], ranks: Ranks) -> list[int]:
    return [int(n) for n in ranks.sum(torch.tensor(counts, dtype=torch.int64, device=ranks.device)).tolist()]


def _alone_on_cpu(cuts: Sequence[_Cut], ranks: Ranks) -> bool:
    return ranks.world_size == 1 and all(cut.keep_L.device.type == "cpu" for cut in cuts)


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
    return (upper << _HALF | lower) - _SHIFT, below + below_inside + num_equal


def _upper_half(keys_L: torch.Tensor) -> torch.Tensor:
    """The upper 16 bits, made non-negative; few keys come here."""
    return ((keys_L.to(torch.int64) + _SHIFT) >> _HALF).to(torch.int32)


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


def _quota(scores: Sequence[Scores], own: Sequence[int], num_keep: int, ranks: Ranks) -> list[int]:
    """Of each run's equals, given as counts, how many go if the last ``num_keep`` in global order stay (collective)."""
    everyone = sorted(
        (index, start, rank, count)
        for rank, runs in enumerate(ranks.gather([(s.index, s.start, n) for s, n in zip(scores, own, strict=True)]))
        for index, start, count in runs
        if count
    )
    quota: dict[tuple[int, int, int], int] = {}
    left = sum(count for *_, count in everyone) - num_keep
    for index, start, rank, count in everyone:
        quota[index, start, rank] = min(left, count)
        left -= min(left, count)
    return [quota.get((s.index, s.start, ranks.rank), 0) for s in scores]


def refuse_not_finite(scores: Sequence[Scores], ranks: Ranks) -> None:
    """Refuse scores that have no order (collective).

    Raises:
        PruningError: With the weights that are NaN or infinite.
    """
    _refuse(scores, [_largest(score) for score in scores], ranks)


def _largest(score: Scores) -> int:
    """The largest magnitude of a run, as a key."""
    if not score.values_L.numel():
        return 0
    if score.values_L.device.type != "cpu":
        return int(_keys_of(score).abs().max())
    return max(max(int(piece_P.max()), -int(piece_P.min())) for _, piece_P in _pieces(score))


def _refuse(scores: Sequence[Scores], largest: Sequence[int], ranks: Ranks) -> None:
    bad = [s.name for s, magnitude in zip(scores, largest, strict=True) if magnitude >= _INFINITE]
    names = sorted({name for of_rank in ranks.gather(bad) for name in of_rank})
    if names:
        raise PruningError(
            f"weights are NaN or infinite in {listed(names, 5)}; training diverged "
            "before this mask update: lower train.lr.peak, or use engine.precision fp32"
        )
