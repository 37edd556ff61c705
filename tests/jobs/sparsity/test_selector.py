"""Who competes with whom, and the counts of the Erdos-Renyi kernel, against brute force and exact fractions."""

import re
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.configs.values.selection import Selection
from prunus.jobs.engine.shards import Shard
from prunus.jobs.errors import PruningError
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.selector import Selector, erk_counts
from tests.jobs.sparsity.pattern_oracle import (
    Bits,
    Model,
    Rule,
    cuts_of,
    encoder,
    of_part,
    random_cuts,
    select_on_ranks,
    whole_shards,
)
from tests.jobs.thread_gang import CPU, run_gang

BY_LAYER = r"layer\.(\d+)\."
ALONE = Ranks(0, 1, CPU)


def brute_force(model: Model, pools: list[list[int]], counts: list[int]) -> Bits:
    """Of each pool of weights so many go: the smallest values, of equals the first of the first weight."""
    keep = [np.ones(array.size, dtype=bool) for array in model.arrays]
    for pool, count in zip(pools, counts, strict=True):
        order = sorted((float(v), w, e) for w in pool for e, v in enumerate(model.arrays[w].ravel()))
        for _, w, e in order[:count]:
            keep[w][e] = False
    return [mask.tolist() for mask in keep]


def exact_erk(shapes: list[tuple[int, int]], num_remove: int) -> list[Fraction]:
    """Weights that go from each matrix: kept shares min(1, e (R + C) / (R C)), with the e that keeps the rest."""
    sizes = [r * c for r, c in shapes]
    kernel = [Fraction(r + c, r * c) for r, c in shapes]
    num_keep = sum(sizes) - num_remove
    by_kernel = sorted(range(len(shapes)), key=lambda i: -kernel[i])
    for num_dense in range(len(shapes)):
        dense, sparse = by_kernel[:num_dense], by_kernel[num_dense:]
        e = Fraction(num_keep - sum(sizes[i] for i in dense)) / sum(kernel[i] * sizes[i] for i in sparse)
        if e >= 0 and all(e * kernel[i] >= 1 for i in dense) and all(e * kernel[i] <= 1 for i in sparse):
            return [sizes[i] * (1 - min(Fraction(1), e * kernel[i])) for i in range(len(shapes))]
    raise AssertionError("no kernel solves it")


def check_counts(shapes: list[tuple[int, int]], counts: list[int], num_remove: int) -> None:
    exact = exact_erk(shapes, num_remove)
    assert sum(counts) == num_remove
    assert all(abs(count - share) < 1 for count, share in zip(counts, exact, strict=True)), (counts, exact)
    rounded_up = [i for i, share in enumerate(exact) if counts[i] > share]
    rounded_down = [i for i, share in enumerate(exact) if counts[i] < share]
    for up in rounded_up:
        for down in rounded_down:
            assert exact[up] % 1 >= exact[down] % 1, "the largest remainders are rounded up"
            assert up < down or exact[up] % 1 > exact[down] % 1 or shapes[up] != shapes[down], "of equals the first"


SHAPES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=8)


@given(SHAPES, st.integers(0, 999))
def test_the_counts_of_the_kernel_add_up_and_keep_in_proportion(
    shapes: list[tuple[int, int]], thousandths: int
) -> None:
    num_remove = Fraction(thousandths, 1000) * sum(r * c for r, c in shapes) // 1
    check_counts(shapes, erk_counts(shapes, thousandths / 1000), num_remove)


BERT_BASE = [(768, 768)] * 4 + [(3072, 768), (768, 3072)]


@pytest.mark.parametrize("thousandths", [0, 1, 100, 500, 850, 900, 990, 999])
def test_the_counts_of_a_whole_bert_base(thousandths: int) -> None:
    shapes = BERT_BASE * 12
    num_remove = thousandths * 84_934_656 // 1000
    counts = erk_counts(shapes, thousandths / 1000)
    check_counts(shapes, counts, num_remove)


def test_at_90_percent_bert_bases_square_matrices_keep_2_of_15_and_the_others_1_of_12() -> None:
    # kernels 1/384 and 5/3072; e = 0.1 * 84,934,656 / (48 * 1536 + 24 * 3840) = 51.2
    counts = erk_counts(BERT_BASE * 12, 0.9)
    assert all(abs(counts[6 * layer] - 768 * 768 * 13 / 15) <= 1 for layer in range(12))
    assert all(abs(counts[6 * layer + 5] - 768 * 3072 * 11 / 12) <= 1 for layer in range(12))


def test_a_small_matrix_stays_whole_and_the_others_carry_its_part() -> None:
    # 10 of 16 + 4 go. Kernels 1/2 and 1: e = 10/12 keeps 4/12 * 10 and 5/12 * 16 = 20/3; nothing is capped
    assert exact_erk([(4, 4), (2, 2)], 10) == [Fraction(28, 3), Fraction(2, 3)]
    assert erk_counts([(4, 4), (2, 2)], 0.5) == [9, 1]
    # 6 of 20 go. e = 14/12 is above 1 for the small one: it stays, 6 go from the large one
    assert erk_counts([(4, 4), (2, 2)], 0.3) == [6, 0]


def test_equal_matrices_share_alike_and_the_first_takes_the_odd_one() -> None:
    assert erk_counts([(2, 4), (2, 4)], 0.5) == [4, 4]
    assert erk_counts([(3, 3), (3, 3), (3, 3)], 0.3) == [3, 3, 2]  # floor of 8.1


@given(SHAPES)
def test_growing_sparsity_takes_more_of_every_matrix_within_rounding(shapes: list[tuple[int, int]]) -> None:
    for before, after in pairwise(erk_counts(shapes, percent / 100) for percent in range(0, 100, 3)):
        assert all(b >= a - 1 for a, b in zip(before, after, strict=True))
    assert erk_counts(shapes, 0.0) == [0] * len(shapes)


@given(SHAPES)
def test_a_sparsity_near_one_removes_all_but_the_rounding(shapes: list[tuple[int, int]]) -> None:
    counts = erk_counts(shapes, 1 - 1e-9)
    sizes = [r * c for r, c in shapes]
    assert sum(counts) == sum(sizes) - 1
    assert all(count <= size for count, size in zip(counts, sizes, strict=True))


# Scopes of single weights


Case = tuple[Model, Rule, int, list[list[int]] | None]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    element = draw(st.sampled_from([st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 2.0**127, width=32)]))
    model = Model()
    for number in range(draw(st.integers(1, 5))):
        rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        values = draw(st.lists(element, min_size=rows * columns, max_size=rows * columns))
        model.add(f"layer.{draw(st.integers(0, 1))}.w{number}.weight", np.array(values).reshape(rows, columns))
    scope = draw(st.sampled_from(["per_layer", "global", "per_group", "erk"]))
    rule = Rule(scope=scope, group_by=BY_LAYER if scope == "per_group" else None)
    return model, rule, draw(st.integers(0, 99)), draw(cuts_of([a.size for a in model.arrays]))


@settings(max_examples=100, deadline=None)
@given(cases())
def test_any_scope_on_any_ranks_is_what_brute_force_keeps(case: Case) -> None:
    model, rule, percent, cuts = case
    sizes = [array.size for array in model.arrays]
    found = select_on_ranks(rule, model, cuts, percent / 100, 3)
    everything = list(range(len(sizes)))
    if rule.scope == "erk":
        counts = [bits.count(False) for bits in found]
        check_counts([(a.shape[0], a.shape[1]) for a in model.arrays], counts, percent * sum(sizes) // 100)
        pools = [[w] for w in everything]
    else:
        pools = {
            "per_layer": [[w] for w in everything],
            "global": [everything],
            "per_group": [[w for w in everything if model.names[w].startswith(f"layer.{n}.")] for n in (0, 1)],
        }[rule.scope]
        counts = [percent * sum(sizes[w] for w in pool) // 100 for pool in pools]
    assert found == brute_force(model, pools, counts)


@pytest.mark.parametrize("scope", ["per_layer", "global", "per_group", "erk"])
def test_one_rank_and_four_choose_the_same_weights(scope: str) -> None:
    generator = np.random.default_rng(9)
    model = encoder(
        "bert", 2, 2, 4, 12, lambda r, c: np.abs(generator.normal(size=(r, c)) * np.exp(9 * generator.normal()))
    )
    model.arrays[3][...] = 0.25  # one that is all ties
    rule = Rule(scope=scope, group_by=BY_LAYER if scope == "per_group" else None)
    one = select_on_ranks(rule, model, None, 0.7)
    sizes = [array.size for array in model.arrays]
    removed = sum(bits.count(False) for bits in one)
    assert (
        removed
        == {
            "per_layer": sum(7 * n // 10 for n in sizes),
            "per_group": 2 * (7 * sum(sizes[:6]) // 10),
            "global": 7 * sum(sizes) // 10,
            "erk": 7 * sum(sizes) // 10,
        }[scope]
    )
    for world_size in (2, 4):
        cuts = random_cuts(sizes, world_size, generator)
        assert select_on_ranks(rule, model, cuts, 0.7) == one, cuts


def test_a_group_has_one_threshold_and_the_groups_do_not_meet() -> None:
    model = Model()
    for name, values in {"layer.0.a": [1, 2], "layer.1.a": [3, 4], "layer.0.b": [5, 6], "layer.1.b": [1, 9]}.items():
        model.add(name, np.array([values]))
    found = select_on_ranks(Rule(scope="per_group", group_by=BY_LAYER), model, None, 0.5)
    assert found == [[False, False], [False, True], [True, True], [False, True]]


@pytest.mark.parametrize("group_by", [r"layer\.(\d+)\.", r"(layer)|other"])
def test_a_weight_without_a_group_is_named(group_by: str) -> None:
    shards = whole_shards(["layer.0.w", "other.w"], [(2, 2), (2, 2)])
    message = re.escape(f"method.group_by {group_by!r} names no group for other.w; let it match every prunable weight")
    with pytest.raises(PruningError, match=message):
        Selector(Selection(scope="per_group", group_by=group_by), 0.0, shards, ALONE)


# Numbers that have no order


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "rule",
    [
        *(Rule(scope=scope, group_by=BY_LAYER if scope == "per_group" else None)
          for scope in ("per_layer", "global", "per_group", "erk")),
        Rule("2:4", final_sparsity=0.5),
        *(Rule(pattern, norm) for pattern in ("2x2", "rows", "columns", "heads", "ffn_units", "sublayers")
          for norm in ("l1", "l2")),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_a_weight_that_is_no_number_on_one_rank_is_named_on_all(rule: Rule, bad: float, sparsity: float) -> None:
    whole = encoder("bert", 2, 2, 2, 4, lambda r, c: np.ones((r, c)))
    model = of_part(whole, rule.pattern) if rule.pattern in {"heads", "ffn_units"} else whole
    victim = len(model.names) - 2
    refused = []

    def act(ranks: Ranks) -> None:
        shards, runs = [], []
        for i, (name, array) in enumerate(zip(model.names, model.arrays, strict=True)):
            half = array.size // 2
            shape = (array.shape[0], array.shape[1])
            shards.append(Shard(name, i, shape, ranks.rank * half, half, False, None, None, None))  # type: ignore[arg-type]
            runs.append(torch.ones(half))
        if ranks.rank == 1:
            runs[victim][3] = bad
        with pytest.raises(PruningError, match="weights are NaN or infinite in") as caught:
            list(Selector(rule.selection, rule.final_sparsity, shards, ranks, 2).select(runs, sparsity))
        refused.append(str(caught.value))

    run_gang(2, act)
    assert len(refused) == 2
    for message in refused:
        assert f"infinite in {model.names[victim]}; training diverged before this mask update" in message
