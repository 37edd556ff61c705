"""Exact selection against a brute-force oracle: a stable sort by (value, weight, element), the first k go."""

import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.configs.values.patterns import count_to_remove
from prunus.jobs.errors import PruningError
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity import select_smallest as selection
from prunus.jobs.sparsity.select_smallest import Scores, keep_largest
from tests.jobs.thread_gang import run_gang

SMALLEST = 1.401298464324817e-45  # the least denormal of fp32
LARGEST = 3.4028234663852886e38
VALUES = st.one_of(
    st.sampled_from([0.0, SMALLEST, 2 * SMALLEST, 1.17549435e-38, 0.5, 1.0, 1.0 + 2**-23, LARGEST]),
    st.floats(0, LARGEST, width=32),
)


def brute_force(weights: list[np.ndarray], num_remove: int) -> list[list[bool]]:
    """True keeps; ties go in the order of weight, then element."""
    order = sorted((float(v), w, e) for w, values in enumerate(weights) for e, v in enumerate(values))
    gone = {(w, e) for _, w, e in order[:num_remove]}
    return [[(w, e) not in gone for e in range(len(values))] for w, values in enumerate(weights)]


def keep_on_ranks(weights: list[np.ndarray], cuts: list[list[int]], num_remove: int) -> list[list[bool]]:
    """Give rank r the run [cuts[w][r], cuts[w][r + 1]) of each weight; return the joined masks."""

    def select(ranks: Ranks) -> list[torch.Tensor]:
        runs = []
        for index, values in enumerate(weights):
            begin, end = cuts[index][ranks.rank], cuts[index][ranks.rank + 1]
            run = torch.from_numpy(values[begin:end].copy())
            runs.append(Scores(f"w{index}", index, begin, run, replicated=False))
        return keep_largest(runs, num_remove, ranks)

    kept = run_gang(len(cuts[0]) - 1, select)
    return [torch.cat([of_rank[index] for of_rank in kept]).tolist() for index in range(len(weights))]


@st.composite
def pools(draw: st.DrawFn) -> tuple[list[np.ndarray], list[list[int]], int]:
    few = st.sampled_from([0.0, SMALLEST, 0.25, 1.0])  # many ties
    element = draw(st.sampled_from([few, VALUES]))
    weights = draw(st.lists(st.lists(element, min_size=0, max_size=12), min_size=1, max_size=4))
    arrays = [np.array(values, dtype=np.float32) for values in weights]
    world_size = draw(st.integers(1, 3))
    cuts = [
        [0, *sorted(draw(st.lists(st.integers(0, len(a)), min_size=world_size - 1, max_size=world_size - 1))), len(a)]
        for a in arrays
    ]
    return arrays, cuts, draw(st.integers(0, sum(len(a) for a in arrays)))


@settings(max_examples=60, deadline=None)
@given(pools())
def test_any_pool_cut_over_any_ranks_keeps_what_brute_force_keeps(
    pool: tuple[list[np.ndarray], list[list[int]], int],
) -> None:
    weights, cuts, num_remove = pool
    assert keep_on_ranks(weights, cuts, num_remove) == brute_force(weights, num_remove)


@pytest.mark.parametrize("num_remove", [0, 1, 499, 500, 501, 1499, 1500])
def test_one_rank_and_three_ranks_choose_the_same(num_remove: int) -> None:
    generator = np.random.default_rng(5)
    weights = [np.abs(generator.normal(size=n)).astype(np.float32).round(2) for n in (900, 600)]
    one = keep_on_ranks(weights, [[0, 900], [0, 600]], num_remove)
    three = keep_on_ranks(weights, [[0, 100, 100, 900], [0, 0, 599, 600]], num_remove)
    assert one == three == brute_force(weights, num_remove)


def scores_of(*weights: list[float]) -> list[Scores]:
    return [Scores(f"w{i}", i, 0, torch.tensor(values), replicated=True) for i, values in enumerate(weights)]


def test_ties_go_in_the_order_of_weight_and_element(alone: Ranks) -> None:
    kept = keep_largest(scores_of([1.0, 2.0, 1.0], [1.0, 0.5, 1.0]), 3, alone)
    # 0.5 goes, then the first two of the four ones
    assert [k.tolist() for k in kept] == [[False, True, False], [True, False, True]]


def test_nothing_goes_at_0_and_everything_at_n(alone: Ranks) -> None:
    pool = scores_of([0.0, 3.0], [1.0])
    assert [k.tolist() for k in keep_largest(pool, 0, alone)] == [[True, True], [True]]
    assert [k.tolist() for k in keep_largest(pool, 3, alone)] == [[False, False], [False]]


def test_neighbours_in_the_last_bit_are_told_apart(alone: Ranks) -> None:
    one = np.float32(1.0)
    values = [float(np.nextafter(one, np.float32(2))), 1.0, float(np.nextafter(one, np.float32(0)))]
    assert [k.tolist() for k in keep_largest(scores_of(values), 2, alone)] == [[True, False, False]]


def test_denormals_are_larger_than_zero(alone: Ranks) -> None:
    kept = keep_largest(scores_of([2 * SMALLEST, 0.0, SMALLEST]), 2, alone)
    assert [k.tolist() for k in kept] == [[True, False, False]]


def test_magnitudes_of_negative_zeros_tie_with_zeros(alone: Ranks) -> None:
    magnitudes = torch.tensor([-0.0, 0.0, -1.0]).abs()
    kept = keep_largest([Scores("w", 0, 0, magnitudes, replicated=True)], 1, alone)
    assert kept[0].tolist() == [False, True, True]


def test_the_largest_float_is_kept_last(alone: Ranks) -> None:
    assert keep_largest(scores_of([LARGEST, 1.0, LARGEST]), 2, alone)[0].tolist() == [False, False, True]


def test_replicated_weights_are_counted_once_on_a_gang(gang: Callable[..., list[Any]]) -> None:
    kept = gang(3, lambda ranks: keep_largest(scores_of([4.0, 3.0, 2.0, 1.0]), 2, ranks)[0].tolist())
    assert kept == [[True, True, False, False]] * 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused_on_every_rank_with_the_weights_name(bad: float) -> None:
    seen = []

    def select(ranks: Ranks) -> None:
        value = bad if ranks.rank == 1 else 1.0
        scores = [
            Scores("encoder.good", 0, ranks.rank, torch.ones(1), replicated=False),
            Scores("encoder.bad", 1, ranks.rank, torch.tensor([value]), replicated=False),
        ]
        with pytest.raises(PruningError, match=r"NaN or infinite in encoder\.bad; .*lower train\.lr\.peak") as refused:
            keep_largest(scores, 1, ranks)
        seen.append(str(refused.value))

    run_gang(2, select)
    assert len(seen) == 2
    assert "encoder.good" not in seen[0]


@pytest.mark.parametrize(
    ("sparsity", "numel", "expected"),
    [
        (0.9, 10, 9),
        (0.9, 1000, 900),
        (0.29, 100, 29),  # the product is 28.999999999999996
        (0.9, 589_824, 530_841),  # 530841.6: the floor
        (0.9, 84_934_656, 76_441_190),  # .4
        (0.85, 84_934_656, 72_194_457),  # .6: the floor, however large the pool
        (0.5, 3, 1),
        (0.0, 7, 0),
        (0.999, 1, 0),
    ],
)
def test_a_sparsity_removes_the_floor_of_its_share(sparsity: float, numel: int, expected: int) -> None:
    assert count_to_remove(sparsity, numel) == expected


@given(st.integers(0, 999), st.integers(1, 2_000_000_000))
def test_shares_in_thousandths_are_floored_as_fractions_are(thousandths: int, numel: int) -> None:
    assert count_to_remove(thousandths / 1000, numel) == Fraction(thousandths, 1000) * numel // 1


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize(
    "bounds",
    [(-1, 0), (0, 1), (2**30, 2**30 + 1), (0x7F7FFFFF, 0x7F800000), (-1, 0x7F800000), (0x3C000000, 0x3C100000)],
)
@pytest.mark.parametrize("num_remove", [1, 300, 777, 1500])
def test_a_sample_that_misleads_costs_a_pass_and_changes_nothing(
    bounds: tuple[int, int], num_remove: int, world_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []

    def mislead(_sample: object, _share: float, deviations: float) -> tuple[int, int]:
        tried.append(deviations)
        return bounds if deviations == min(tried) else (-1, 0x7F800000)

    monkeypatch.setattr(selection, "_bounds", mislead)
    values = np.abs(np.random.default_rng(1).normal(size=1500) * 0.02).astype(np.float32).round(4)
    values[:500] = 0.0
    cuts = [[0, 1500]] if world_size == 1 else [[0, 10, 900, 1500]]
    assert keep_on_ranks([values], cuts, num_remove) == brute_force([values], num_remove)


@pytest.mark.parametrize("num_remove", [0, 1, 150_000, 180_000, 199_999, 200_000])
def test_a_pool_of_many_pieces_and_three_ranks_keeps_what_a_stable_sort_keeps(num_remove: int) -> None:
    values = (np.random.default_rng(2).normal(size=200_000) * 0.02).astype(np.float32).round(5)  # signs and ties
    expected = np.ones(200_000, bool)
    expected[np.argsort(np.abs(values), kind="stable")[:num_remove]] = False
    for cuts in ([0, 200_000], [0, 70_000, 70_001, 200_000]):
        (kept,) = keep_on_ranks([values], [cuts], num_remove)
        assert np.array_equal(kept, expected)


@pytest.mark.parametrize("num_remove", [2_700_000, 1_350_000])  # all of the zeros, and half of them
def test_a_pool_full_of_zeros_takes_no_more_memory_than_its_mask_and_a_little(num_remove: int, alone: Ranks) -> None:
    values = torch.rand(3_000_000, generator=torch.Generator().manual_seed(3)) + 1.0
    values[:2_700_000] = 0.0
    pool = [Scores("w", 0, 0, values, replicated=True)]
    tracemalloc.start()  # sees NumPy's arrays, not torch's: of those there is none on a CPU but the sample
    kept = keep_largest(pool, num_remove, alone)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not kept[0][:num_remove].any()
    assert kept[0][num_remove:].all()
    assert peak < 1.5 * values.numel()


@pytest.mark.parametrize("num_remove", [1, 60_000, 119_999, 120_000, 120_001, 180_000, 200_000])
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_hidden_values_compete_with_those_that_are_there(num_remove: int, num_ranks: int) -> None:
    generator = np.random.default_rng(3)
    values = (generator.normal(size=200_000) * 0.02).astype(np.float32).round(4)
    values[:120_000:2] = 0.0  # ties of zeros
    shown = generator.random(200_000) < 0.4
    expected = np.ones(200_000, bool)
    expected[np.argsort(np.abs(values), kind="stable")[:num_remove]] = False
    cuts = [0, 200_000] if num_ranks == 1 else [0, 90_001, 200_000]

    def select(ranks: Ranks) -> torch.Tensor:
        run = slice(cuts[ranks.rank], cuts[ranks.rank + 1])
        shown_L, hidden_L = (torch.from_numpy(np.where(which, values, -0.0)[run]) for which in (shown, ~shown))
        assert shown_L.dtype == torch.float32
        return keep_largest([Scores("w", 0, run.start, shown_L, False, hidden_L)], num_remove, ranks)[0]

    assert np.array_equal(torch.cat(run_gang(num_ranks, select)), expected)


@pytest.mark.parametrize("num_remove", [30_000, 90_000, 100_000, 199_000])
def test_weights_that_repeat_at_the_distance_of_the_sample_cost_passes_and_change_nothing(
    num_remove: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    cut_all = selection._cut_all
    monkeypatch.setattr(selection, "_cut_all", lambda *given: passes.append(given[1:]) or cut_all(*given))
    distance = 200_000 // round(200_000 ** (2 / 3)) | 1
    values = np.abs(np.random.default_rng(2).normal(size=200_000)).astype(np.float32)
    values.reshape(-1, 16)[::distance] += 50.0  # all that the sample sees
    (kept,) = keep_on_ranks([values], [[0, 200_000]], num_remove)
    assert [kept] == brute_force([values], num_remove)
    assert len(passes) > 1


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1), size=st.integers(1, 5_000), ranks=st.integers(1, 3), spread=st.sampled_from([1, 8])
)
def test_signed_scores_go_from_the_most_negative_on(seed: int, size: int, ranks: int, spread: int) -> None:
    """Against a stable sort of the values themselves; with ``spread`` 1 most of them tie, zeros of both signs too."""
    rng = np.random.default_rng(seed)
    values = (rng.integers(-3 * spread, 3 * spread + 1, size) / np.float32(2)).astype(np.float32)
    values[rng.random(size) < 0.1] = -0.0
    num_remove = int(rng.integers(0, size + 1))
    expected = np.ones(size, dtype=bool)
    expected[np.argsort(values, kind="stable")[:num_remove]] = False
    cuts = [size * rank // ranks for rank in range(ranks + 1)]

    def act(own: Ranks) -> list[torch.Tensor]:
        begin, end = cuts[own.rank], cuts[own.rank + 1]
        run = Scores("w", 0, begin, torch.from_numpy(values[begin:end].copy()), ranks == 1, signed=True)
        return keep_largest([run], num_remove, own)

    found = torch.cat([kept[0] for kept in run_gang(ranks, act)]).numpy()
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf"), -float("inf")])
def test_signed_scores_that_have_no_order_are_refused(alone: Ranks, bad: float) -> None:
    values = torch.tensor([1.0, -2.0, bad])
    with pytest.raises(PruningError, match="NaN or infinite in w"):
        keep_largest([Scores("w", 0, 0, values, True, signed=True)], 1, alone)


def test_signed_scores_of_a_large_pool(gang: Any) -> None:
    """Large enough to be sampled, with ties at the threshold."""
    torch.manual_seed(0)
    values = (torch.randn(300_000) * 50).round() / 50
    for num_remove in (1, 149_999, 150_000, 240_000, 299_999):
        expected = torch.ones(300_000, dtype=torch.bool)
        expected[values.argsort(stable=True)[:num_remove]] = False

        def act(ranks: Ranks, k: int = num_remove) -> list[torch.Tensor]:
            half = 150_000 * ranks.rank
            return keep_largest([Scores("w", 0, half, values[half : half + 150_000], False, signed=True)], k, ranks)

        assert torch.equal(torch.cat([kept[0] for kept in gang(2, act)]), expected), num_remove
