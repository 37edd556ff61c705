"""N:M against brute force: in every M consecutive inputs of an output the smallest go, of equals the first."""

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.configs.values.selection import Selection
from prunus.jobs.errors import PruningError
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.selector import Selector
from tests.jobs.sparsity.pattern_oracle import Bits, Model, Rule, cuts_of, random_cuts, select_on_ranks, whole_shards


def brute_force(model: Model, of: int, num_remove: int) -> Bits:
    masks = []
    for array in model.arrays:
        keep = np.ones(array.shape, dtype=bool)
        for r in range(array.shape[0]):
            for begin in range(0, array.shape[1], of):
                places = sorted(range(begin, begin + of), key=lambda c: (float(array[r, c]), c))
                keep[r, places[:num_remove]] = False
        masks.append(keep.ravel().tolist())
    return masks


@st.composite
def cases(draw: st.DrawFn) -> tuple[Model, int, int, list[list[int]] | None, int]:
    of = draw(st.sampled_from([2, 3, 4, 5, 8, 9, 16, 20]))
    element = draw(st.sampled_from([st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 2.0**127, width=32)]))  # many ties
    model = Model()
    for number in range(draw(st.integers(1, 3))):
        rows, columns = draw(st.integers(1, 3)), of * draw(st.integers(1, 3))
        values = draw(st.lists(element, min_size=rows * columns, max_size=rows * columns))
        model.add(f"layer.{number}.weight", np.array(values).reshape(rows, columns))
    return (
        model,
        draw(st.integers(1, of - 1)),
        of,
        draw(cuts_of([a.size for a in model.arrays])),
        draw(st.integers(0, 100)),
    )


@settings(max_examples=60, deadline=None)
@given(cases())
def test_any_n_of_m_on_any_ranks_is_what_brute_force_keeps(
    case: tuple[Model, int, int, list[list[int]] | None, int],
) -> None:
    model, keep, of, cuts, percent = case
    rule = Rule(f"{keep}:{of}", final_sparsity=1 - keep / of)
    assert select_on_ranks(rule, model, cuts, 1 - keep / of, 3) == brute_force(model, of, of - keep)
    growing = Fraction(percent, 100) * Fraction(of - keep, of)  # on the way: the floor of the share of each group
    found = select_on_ranks(rule, model, cuts, float(growing), 3)
    assert found == brute_force(model, of, growing * of // 1)


@pytest.mark.parametrize(("pattern", "written"), [("1:3", 0.666667), ("1:3", 0.666666), ("2:3", 0.333333)])
def test_a_share_written_with_six_digits_removes_what_the_pattern_says(pattern: str, written: float) -> None:
    model = Model()
    model.add("w", np.arange(1.0, 7.0).reshape(1, 6))
    found = select_on_ranks(Rule(pattern, final_sparsity=written), model, None, written)
    assert found == brute_force(model, 3, 3 - int(pattern[0]))


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:4", "4:8", "8:16", "1:32"])
def test_one_rank_and_five_choose_the_same_among_ugly_numbers(pattern: str) -> None:
    generator = np.random.default_rng(11)
    model, of = Model(), int(pattern.split(":")[1])
    for name, shape in {"a": (7, 32), "b": (3, 96)}.items():
        ugly = np.abs(generator.normal(size=shape) * np.exp(9 * generator.normal(size=shape)))
        model.add(name, np.where(generator.random(shape) < 0.2, 0.0, ugly))
    rule = Rule(pattern, final_sparsity=1 - int(pattern.split(":")[0]) / of)
    one = select_on_ranks(rule, model, None, rule.final_sparsity)
    assert one == brute_force(model, of, of - int(pattern.split(":")[0]))
    for world_size in (2, 5):
        cuts = random_cuts([a.size for a in model.arrays], world_size, generator)
        assert select_on_ranks(rule, model, cuts, rule.final_sparsity) == one, cuts


def test_of_equals_the_first_go(alone: Ranks) -> None:
    model = Model()
    model.add("w", np.ones((1, 8)))
    found = select_on_ranks(Rule("2:4", final_sparsity=0.5), model, None, 0.5)
    assert found == [[False, False, True, True] * 2]


def test_groups_lie_along_the_inputs_and_not_along_the_outputs() -> None:
    model = Model()
    model.add("w", np.array([[4, 3, 2, 1], [8, 7, 6, 5], [9, 10, 11, 12], [13, 14, 15, 16]]))
    found = select_on_ranks(Rule("2:4", final_sparsity=0.5), model, None, 0.5)
    assert found == [[True, True, False, False] * 2 + [False, False, True, True] * 2]


def test_a_number_of_inputs_that_m_does_not_divide_is_refused_with_the_weight(alone: Ranks) -> None:
    shards = whole_shards(["fits", "odd", "odder"], [(3, 8), (4, 6), (8, 9)])
    message = "groups of 4 do not fit 2 of 3 weights: odd of shape [4, 6] has a number of inputs that 4 does not divide"
    with pytest.raises(PruningError, match=re.escape(message)):
        Selector(Selection("2:4"), 0.5, shards, alone)
