"""Schedules against the published run's numbers (100k steps, 90%, growth 0-50k, every 1k) and hand arithmetic."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.configs.methods.dense import Dense
from prunus.configs.methods.gradual_magnitude import GradualMagnitude
from prunus.configs.schedules import (
    Window,
    cubic_sparsity,
    is_update_step,
    linear_sparsity,
    window_steps,
)
from prunus.configs.specs.training import LearningRate, lr_factor

PAPER = GradualMagnitude(
    final_sparsity=0.9, growth_window=(0.0, 0.5), selection_window=(0.0, 0.8), update_every=1000, regrow=True
)
REWIND = LearningRate(peak=5e-5, schedule="linear_rewind", warmup=0.01)


@pytest.mark.parametrize(
    ("step", "percent"),
    [
        (0, 0.0),
        (1_000, 5.3),
        (5_000, 24.4),
        (10_000, 43.9),
        (20_000, 70.6),
        (30_000, 84.2),
        (40_000, 89.3),
        (50_000, 90),
    ],
)
def test_sparsity_follows_the_published_90_percent_run(step: int, percent: float) -> None:
    reached = cubic_sparsity(step, Window(0, 50_000), 0.0, 0.9)
    assert round(100 * reached, 1) == percent
    exact = Fraction(9, 10) * (1 - (1 - Fraction(step, 50_000)) ** 3)
    assert reached == pytest.approx(float(exact), abs=1e-15)
    assert PAPER.sparsity_at(step, 100_000) == reached


def test_sparsity_half_way_by_hand() -> None:
    # one half left: 0.8 + (0.2 - 0.8) / 8 = 0.725
    assert cubic_sparsity(15, Window(10, 20), 0.2, 0.8) == pytest.approx(0.725, abs=1e-15)


def test_sparsity_is_constant_outside_the_growth_window() -> None:
    growth = Window(10, 20)
    assert [cubic_sparsity(t, growth, 0.2, 0.8) for t in (0, 9, 10)] == [0.2] * 3
    assert [cubic_sparsity(t, growth, 0.2, 0.8) for t in (20, 21, 99)] == [0.8] * 3


def test_an_empty_growth_window_is_a_jump_to_the_final_sparsity() -> None:
    assert [cubic_sparsity(t, Window(5, 5), 0.1, 0.7) for t in (4, 5, 6)] == [0.1, 0.7, 0.7]


@given(st.integers(0, 1000), st.integers(1, 1000), st.floats(0, 0.5), st.floats(0.5, 0.99), st.integers(0, 2500))
def test_sparsity_agrees_with_exact_fractions_and_never_falls(
    begin: int, length: int, initial: float, final: float, step: int
) -> None:
    growth = Window(begin, begin + length)
    left = 1 - min(Fraction(1), max(Fraction(0), Fraction(step - begin, length)))
    exact = Fraction(final) + (Fraction(initial) - Fraction(final)) * left**3
    assert cubic_sparsity(step, growth, initial, final) == pytest.approx(float(exact), abs=1e-14)
    assert cubic_sparsity(step + 1, growth, initial, final) >= cubic_sparsity(step, growth, initial, final)


@pytest.mark.parametrize(
    ("step", "thousandths"), [(0, 0), (10_000, 180), (12_500, 225), (25_000, 450), (50_000, 900), (99_999, 900)]
)
def test_linear_sparsity_grows_by_the_same_share_each_step(step: int, thousandths: int) -> None:
    method = PAPER.model_copy(update={"schedule": "linear"})
    assert method.sparsity_at(step, 100_000) == pytest.approx(thousandths / 1000, abs=1e-14)


@given(st.integers(0, 1000), st.integers(0, 1000), st.floats(0, 0.5), st.floats(0.5, 0.99), st.integers(0, 2500))
def test_linear_sparsity_agrees_with_exact_fractions_and_never_falls(
    begin: int, length: int, initial: float, final: float, step: int
) -> None:
    growth = Window(begin, begin + length)
    grown = min(Fraction(1), max(Fraction(0), Fraction(step - begin, length))) if length else Fraction(step >= begin)
    exact = Fraction(initial) + (Fraction(final) - Fraction(initial)) * grown
    found = linear_sparsity(step, growth, initial, final)
    assert found == pytest.approx(float(exact), abs=1e-14)
    assert initial <= found <= linear_sparsity(step + 1, growth, initial, final) <= final
    if grown in (0, 1):
        assert found == (initial, final)[int(grown)], "the ends are exact"


def test_constant_sparsity_is_there_from_the_begin_of_growth() -> None:
    method = GradualMagnitude(
        final_sparsity=0.75, initial_sparsity=0.25, growth_window=(0.2, 0.5), schedule="constant", update_every=1
    )
    assert [method.sparsity_at(t, 10) for t in (0, 1)] == [0.25] * 2
    assert [method.sparsity_at(t, 10) for t in range(2, 11)] == [0.75] * 9


@pytest.mark.parametrize("schedule", ["cubic", "linear", "constant"])
def test_every_schedule_ends_exactly_at_the_final_sparsity(schedule: str) -> None:
    method = PAPER.model_copy(update={"schedule": schedule, "final_sparsity": 0.7, "initial_sparsity": 0.1})
    assert [method.sparsity_at(t, 777) for t in (388, 389, 500, 777)] == [0.7] * 4  # growth ends at round(388.5)
    assert method.sparsity_at(0, 777) == (0.7 if schedule == "constant" else 0.1)


def schedule_threshold(
    step: int, total: int, warmup: int, initial: float, final: float, initial_warmup: int, final_warmup: int
) -> float:
    """Movement pruning's own schedule, of the share kept (structured_movement.md, section 3.1)."""
    ti, tf = initial_warmup * warmup, final_warmup * warmup
    if step <= ti:
        return initial
    if step > total - tf:
        return final
    return final + (initial - final) * (1 - (step - ti) / (total - ti - tf)) ** 3


@pytest.mark.parametrize(
    ("step", "kept"), [(1000, 1.0), (1001, 0.999636), (2750, 0.508594), (4500, 0.25625), (6250, 0.163281), (8000, 0.15)]
)
def test_movement_prunings_warm_up_and_cool_down_are_a_cubic_with_a_window(step: int, kept: float) -> None:
    """The values of the published code for T = 10,000, warm-up 1,000, factors 1 and 2, kept 1 to 0.15."""
    method = GradualMagnitude(final_sparsity=0.85, growth_window=(0.1, 0.8), selection_window=(0.0, 0.8))
    assert round(1 - method.sparsity_at(step, 10_000), 6) == kept
    assert round(schedule_threshold(step, 10_000, 1000, 1.0, 0.15, 1, 2), 6) == kept


@given(st.integers(1, 40), st.integers(0, 3), st.integers(0, 3), st.integers(1, 99), st.data())
def test_movement_prunings_schedule_is_a_cubic_at_every_step(
    warmup: int, before: int, after: int, removed_percent: int, data: st.DataObject
) -> None:
    total = warmup * (before + after) + data.draw(st.integers(1, 200))
    window = (before * warmup / total, 1 - after * warmup / total)
    method = GradualMagnitude(
        final_sparsity=removed_percent / 100, growth_window=window, selection_window=(0.0, 1.0), update_every=1
    )
    for step in range(total + 1):
        kept = schedule_threshold(step, total, warmup, 1.0, 1 - removed_percent / 100, before, after)
        assert method.sparsity_at(step, total) == pytest.approx(1 - kept, abs=1e-12)


def test_windows_are_shares_of_the_steps() -> None:
    assert window_steps((0.0, 0.5), 100_000) == Window(0, 50_000)
    assert window_steps((0.1, 0.8), 15) == Window(2, 12)  # 1.5 -> 2, 12.0


def test_masks_are_chosen_every_so_many_steps_of_the_selection_window() -> None:
    updates = [t for t in range(40) if is_update_step(t, Window(4, 30), Window(4, 12), 4)]
    assert updates == [4, 8, 12, 16, 20, 24, 28]


def test_masks_are_chosen_at_the_end_of_growth_even_between_two_regular_updates() -> None:
    updates = [t for t in range(40) if is_update_step(t, Window(0, 20), Window(0, 13), 5)]
    assert updates == [0, 5, 10, 13, 15, 20]


def test_no_mask_is_chosen_outside_the_selection_window() -> None:
    assert not any(is_update_step(t, Window(5, 9), Window(6, 8), 1) for t in [0, 1, 4, 10, 11, 100])


@pytest.mark.parametrize(
    ("step", "numerator", "denominator"),
    [
        (0, 0, 1_000),
        (500, 500, 1_000),
        (999, 999, 1_000),
        (1_000, 50_000, 49_000),  # r = 1000: 100k - 50k - 1000 + 1000; 1.0204
        (1_001, 49_999, 49_000),
        (1_999, 49_001, 49_000),  # the lowest point of a tooth: 1.0000
        (2_000, 50_000, 49_000),  # rewound
        (49_999, 49_001, 49_000),
        (50_000, 50_000, 49_000),
        (75_000, 25_000, 49_000),
        (99_999, 1, 49_000),
        (100_000, 0, 1),
    ],
)
def test_learning_rate_rewinds_as_published(step: int, numerator: int, denominator: int) -> None:
    assert lr_factor(step, 100_000, REWIND, PAPER) == pytest.approx(numerator / denominator, rel=1e-12)


def test_learning_rate_while_growing_is_a_saw_between_1_0000_and_1_0204() -> None:
    factors = [lr_factor(t, 100_000, REWIND, PAPER) for t in range(1_000, 50_000)]
    assert round(max(factors), 4) == 1.0204
    assert round(min(factors), 4) == 1.0000
    jumps = [t + 1_001 for t, (now, after) in enumerate(pairwise(factors)) if after > now]
    assert jumps == list(range(2_000, 50_000, 1_000))


def test_learning_rate_between_warm_up_and_a_late_growth_stays_at_the_paused_decay() -> None:
    method = GradualMagnitude(
        final_sparsity=0.5, growth_window=(0.5, 0.7), selection_window=(0.5, 0.8), update_every=10
    )
    lr = LearningRate(peak=1.0, schedule="linear_rewind", warmup=0.1)
    # N = 100, w = 10, b = 50, e = 70, P = 20, length 70
    expected = {10: 1.0, 49: 31 / 70, 50: 30 / 70, 59: 21 / 70, 60: 30 / 70, 69: 21 / 70, 70: 30 / 70, 99: 1 / 70}
    assert {t: lr_factor(t, 100, lr, method) for t in expected} == pytest.approx(expected)


def test_linear_learning_rate_rises_and_falls_to_zero() -> None:
    lr = LearningRate(peak=1.0, schedule="linear", warmup=0.2)
    expected = [0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0]
    assert [lr_factor(t, 10, lr, Dense()) for t in range(11)] == pytest.approx(expected)


def test_constant_learning_rate_has_a_warm_up_too() -> None:
    lr = LearningRate(peak=1.0, schedule="constant", warmup=0.2)
    assert [lr_factor(t, 10, lr, Dense()) for t in (0, 1, 2, 9)] == [0, 0.5, 1, 1]


def test_without_warm_up_the_first_step_is_at_the_peak() -> None:
    for schedule in ("linear", "constant"):
        assert lr_factor(0, 10, LearningRate(peak=1.0, schedule=schedule, warmup=0.0), Dense()) == 1.0


@given(st.integers(1, 300), st.floats(0, 1), st.floats(0, 0.6), st.integers(1, 50))
def test_no_learning_rate_is_negative_or_breaks(num_steps: int, warmup: float, grown: float, every: int) -> None:
    method = GradualMagnitude(final_sparsity=0.5, growth_window=(0.0, grown), update_every=every)
    for schedule in ("linear", "constant", "linear_rewind"):
        lr = LearningRate(peak=1.0, schedule=schedule, warmup=warmup)
        assert all(lr_factor(t, num_steps, lr, method) >= 0.0 for t in range(num_steps + 1))
