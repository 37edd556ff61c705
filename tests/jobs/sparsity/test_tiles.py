"""Groups of weights against brute force: positions written down one by one, scores as exact fractions."""

import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.configs.values.prunable import Prunable
from prunus.jobs.errors import PruningError
from prunus.jobs.models.prunable import prunable_parameters
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.selector import Selector
from prunus.jobs.sparsity.tiles import Tiling, tilings
from tests.jobs.sparsity.pattern_oracle import (
    NAMES,
    Model,
    Rule,
    cuts_of,
    encoder,
    group_sets,
    of_part,
    random_cuts,
    remove_smallest,
    select_on_ranks,
    whole_shards,
)
from tests.jobs.thread_gang import CPU

BY_LAYER = r"layers?\.(\d+)\."
PARTS = ("heads", "ffn_units", "sublayers")


def pools_of(model: Model, pattern: str, scope: str) -> list[list[Any]]:
    """Groups that compete, in the order of the model."""
    sets = group_sets(pattern, model)
    if scope == "per_layer":
        return [groups for _, groups in sets]
    if scope == "global":
        return [[group for _, groups in sets for group in groups]]
    layers: dict[str, list[Any]] = {}
    for weight, groups in sets:
        found = re.search(BY_LAYER, model.names[weight])
        assert found is not None
        layers.setdefault(found[1], []).extend(groups)
    return list(layers.values())


Case = tuple[Model, Rule, int, list[list[int]] | None]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Values are multiples of 1/16 up to 1, so that every sum is exact in fp32 and unequal means stay unequal."""
    most = draw(st.sampled_from([1, 3, 16]))  # few values: many ties

    def values(rows: int, columns: int) -> np.ndarray:
        drawn = draw(st.lists(st.integers(0, most), min_size=rows * columns, max_size=rows * columns))
        return np.array(drawn).reshape(rows, columns) / 16

    scope = draw(st.sampled_from(["per_layer", "global", "per_group"]))
    kind = draw(st.sampled_from(["rows", "columns", "blocks", *PARTS]))
    if kind in PARTS:
        family = draw(st.sampled_from(sorted(NAMES)))
        num_layers, heads, head_size, units = (draw(st.integers(1, most)) for most in (2, 3, 2, 5))
        model = of_part(encoder(family, num_layers, heads, head_size, units, values), kind)
        pattern = kind
    else:
        height, width = draw(st.sampled_from([(1, 2), (2, 1), (1, 4), (2, 2), (3, 2)]))
        pattern = f"{height}x{width}" if kind == "blocks" else kind
        model = Model()
        for number in range(draw(st.integers(1, 3))):
            rows, columns = height * draw(st.integers(1, 4)), width * draw(st.integers(1, 4))
            model.add(f"layer.{number % 2}.{number}.weight", values(rows, columns))
    rule = Rule(pattern, draw(st.sampled_from(["l1", "l2", "mean"])), scope, BY_LAYER if scope == "per_group" else None)
    return model, rule, draw(st.integers(0, 99)), draw(cuts_of([a.size for a in model.arrays]))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_any_groups_on_any_ranks_are_what_brute_force_keeps(case: Case) -> None:
    model, rule, percent, cuts = case
    expected = remove_smallest(pools_of(model, rule.pattern, rule.scope), model, rule.norm, Fraction(percent, 100))
    assert select_on_ranks(rule, model, cuts, percent / 100, 3) == expected


def normal_model(pattern: str, seed: int) -> Model:
    generator = np.random.default_rng(seed)

    def values(rows: int, columns: int) -> np.ndarray:
        return np.abs(generator.normal(size=(rows, columns)) * 0.02)

    return of_part(encoder("bert", 2, 3, 4, 20, values), pattern if pattern in PARTS else "sublayers")


PATTERNS = ("4x4", "1x4", "4x1", "rows", "columns", *PARTS)


@pytest.mark.parametrize("norm", ["l1", "l2", "mean"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_groups_of_weights_as_models_have_them_go_in_the_order_of_their_exact_norms(pattern: str, norm: str) -> None:
    model = normal_model(pattern, 7)
    for scope in ("per_layer", "global"):
        expected = remove_smallest(pools_of(model, pattern, scope), model, norm, Fraction(6, 10))
        assert select_on_ranks(Rule(pattern, norm, scope), model, None, 0.6) == expected, scope


@pytest.mark.parametrize("norm", ["l1", "l2", "mean"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_any_number_of_ranks_chooses_the_groups_of_one_to_the_bit(pattern: str, norm: str) -> None:
    """Sums of such numbers depend on their order in floats: denormals, 1e-30 and 1e30 in one pool; and many equals."""
    generator = np.random.default_rng(3)
    model = normal_model(pattern, 5)
    for array in model.arrays[::2]:
        array *= np.exp(12 * generator.normal(size=array.shape)).astype(np.float32)
    for array in model.arrays[1::2]:
        array[...] = generator.choice([0.1, 0.2, 0.3, 1e-45], array.shape)
    sizes = [array.size for array in model.arrays]
    for scope in ("global", "per_group"):
        rule = Rule(pattern, norm, scope, BY_LAYER if scope == "per_group" else None)
        one = select_on_ranks(rule, model, None, 0.5)
        assert any(not all(bits) for bits in one)
        assert any(any(bits) for bits in one)
        for world_size in (2, 3):
            cuts = random_cuts(sizes, world_size, generator)
            assert select_on_ranks(rule, model, cuts, 0.5) == one, cuts


def test_equal_sums_of_one_set_of_numbers_are_equal_whatever_their_order() -> None:
    """In fp32 0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ; the groups tie, so the first goes."""
    model = Model()
    model.add("w", np.array([[0.3, 0.2, 0.1, 1e8], [1e8, 0.1, 0.2, 0.3], [0.1, 1e8, 0.3, 0.2]]))
    for norm in ("l1", "l2", "mean"):
        found = select_on_ranks(Rule("rows", norm), model, [[0, 5, 12]], 0.34)
        assert found == [[False] * 4 + [True] * 8], norm


@pytest.mark.parametrize("scale", [2.0**-149, 2.0**-140, 2.0**-100, 2.0**-60, 1.0, 2.0**60, 2.0**125])
def test_any_size_of_weights_has_its_order(scale: float) -> None:
    """Powers of two keep the sums exact; the squares leave the range of fp32."""
    model = Model()
    model.add("w", np.array([[3, 4, 0], [1, 1, 5], [4, 4, 0], [2, 2, 2]]) * scale)
    # sums 7, 7, 8, 6; squares 25, 27, 32, 12
    order = {"l1": [3, 0, 1, 2], "mean": [3, 0, 1, 2], "l2": [3, 0, 1, 2]}
    for norm, rows in order.items():
        for num_gone in (1, 2, 3):
            found = select_on_ranks(Rule("rows", norm), model, [[0, 2, 7, 12]], num_gone / 4)
            gone = sorted(r for r in range(4) if not any(found[0][3 * r : 3 * r + 3]))
            assert gone == sorted(rows[:num_gone]), norm
            assert sum(found[0]) == 3 * (4 - num_gone)


def test_the_norms_differ_where_they_should() -> None:
    """Sums 8 and 9, squares 64 and 27: l1 removes the first row, l2 the second."""
    model = Model()
    model.add("w", np.array([[8.0, 0, 0], [3, 3, 3]]))
    assert select_on_ranks(Rule("rows", "l1"), model, None, 0.5) == [[False] * 3 + [True] * 3]
    assert select_on_ranks(Rule("rows", "l2"), model, None, 0.5) == [[True] * 3 + [False] * 3]
    other = Model()  # rows of 2 and of 4: sums 6 and 8, means 3 and 2
    other.add("a", np.array([[3.0, 3]]))
    other.add("b", np.array([[2.0, 2, 2, 2]]))
    assert select_on_ranks(Rule("rows", "l1", "global"), other, None, 0.5) == [[False] * 2, [True] * 4]
    assert select_on_ranks(Rule("rows", "mean", "global"), other, None, 0.5) == [[True] * 2, [False] * 4]


def test_a_head_is_rows_of_query_key_value_and_columns_of_the_output() -> None:
    model = of_part(encoder("bert", 1, 2, 1, 1, lambda r, c: np.ones((r, c))), "heads")
    model.arrays[1][1, :] = 0.5  # the key's second row makes the second head the smaller one
    found = select_on_ranks(Rule("heads"), model, None, 0.5)
    assert found == [[True, True, False, False]] * 3 + [[True, False, True, False]]


def test_a_unit_is_a_row_of_the_first_and_a_column_of_the_second_matrix() -> None:
    model = of_part(encoder("distilbert", 1, 1, 2, 3, lambda r, c: np.ones((r, c))), "ffn_units")
    model.arrays[1][0, 1] = 0.5  # in the second unit's column
    found = select_on_ranks(Rule("ffn_units"), model, None, 0.34)
    assert found == [[True, True, False, False, True, True], [True, False, True] * 2]


def test_of_equal_sublayers_the_first_of_the_model_go_whatever_their_kind() -> None:
    model = encoder("bert", 2, 1, 2, 3, lambda r, c: np.ones((r, c)))
    found = select_on_ranks(Rule("sublayers", "mean", "global"), model, None, 0.5)
    assert [any(bits) for bits in found] == [False] * 6 + [True] * 6  # the first layer's two, not both attentions


# What is refused before the first step


def selector(rule: Rule, shapes: dict[str, tuple[int, ...]], num_heads: int | None = None) -> Selector:
    return Selector(
        rule.selection,
        rule.final_sparsity,
        whole_shards(list(shapes), list(shapes.values())),
        Ranks(0, 1, CPU),
        num_heads,
    )


ATTENTION = {f"encoder.layer.0.attention.self.{n}.weight": (6, 6) for n in ("query", "key", "value")}
ATTENTION |= {"encoder.layer.0.attention.output.dense.weight": (6, 6)}
UNITS = {"encoder.layer.0.intermediate.dense.weight": (8, 6), "encoder.layer.0.output.dense.weight": (6, 8)}


@pytest.mark.parametrize(
    ("rule", "shapes", "num_heads", "expected"),
    [
        (Rule("4x4"), {"ok": (8, 8), "w": (6, 8)}, None,
         "w of shape [6, 8] cannot be cut into groups of 4 x 4 (outputs x inputs); use a size that divides it"),
        (Rule("4x4"), {"w": (8, 6)}, None, "w of shape [8, 6] cannot be cut into groups of 4 x 4"),
        (Rule("1x8"), {"w": (8, 4)}, None, "w of shape [8, 4] cannot be cut into groups of 1 x 8"),
        (Rule("heads"), ATTENTION, 4, "query.weight of shape [6, 6] cannot be cut into 4 equal parts"),
        (Rule("heads"), ATTENTION, None,
         "pattern heads: the table of model families has no heads for this model; use rows"),
        (Rule("heads"), UNITS, 2, "pattern heads finds no such part among the prunable weights "
         "(encoder.layer.0.intermediate.dense.weight, …); use rows or columns"),
        (Rule("ffn_units"), ATTENTION, 2, "pattern ffn_units finds no such part among the prunable weights"),
        (Rule("sublayers"), {"w": (4, 4)}, 2, "pattern sublayers finds no such part among the prunable weights (w, …)"),
        (Rule("heads"), ATTENTION | UNITS, 2,
         "pattern heads has no place for 2 of 6 prunable weights (encoder.layer.0.intermediate.dense.weight, for one); "
         "leave them out with method.prunable.exclude"),
        (Rule("ffn_units"), ATTENTION | UNITS, 2, "pattern ffn_units has no place for 4 of 6 prunable weights"),
        (Rule("sublayers"), ATTENTION | UNITS | {"pooler.dense.weight": (6, 6)}, 2,
         "pattern sublayers has no place for 1 of 7 prunable weights (pooler.dense.weight, for one)"),
        (Rule("ffn_units"), {**UNITS, "encoder.layer.0.output.dense.weight": (6, 10)}, 2,
         "encoder.layer.0.output.dense.weight of shape [6, 10] cannot be cut into 8 equal parts"),
        (Rule("rows", scope="per_group", group_by=r"layer\.(\d+)"), {"encoder.layer.0.w": (2, 2), "other": (2, 2)},
         None, r"method.group_by 'layer\\.(\\d+)' names no group for other; let it match every prunable weight"),
        (Rule("rows", final_sparsity=0.2), {"w": (4, 3)}, None,
         "final_sparsity 0.2 of the 4 groups of w removes none of them; raise it to 0.2500 or more"),
        (Rule("heads", final_sparsity=0.49), ATTENTION, 2, "final_sparsity 0.49 of the 2 groups of encoder.layer.0"),
        (Rule("rows", scope="global", final_sparsity=0.1), {"a": (4, 3), "b": (5, 3)}, None,
         "final_sparsity 0.1 of the 9 groups of a removes none of them"),
    ],
)  # fmt: skip
def test_a_pattern_that_does_not_fit_is_refused_with_the_weight_and_a_way_out(
    rule: Rule, shapes: dict[str, tuple[int, ...]], num_heads: int | None, expected: str
) -> None:
    with pytest.raises(PruningError, match=re.escape(expected)):
        selector(rule, shapes, num_heads)


@pytest.mark.parametrize("total", [2, 3, 7, 12, 64, 3072, 99_999])
def test_the_sparsity_that_the_refusal_asks_for_removes_a_group(total: int) -> None:
    with pytest.raises(PruningError, match="raise it to") as refused:
        selector(Rule("rows", final_sparsity=0.9 / total), {"w": (total, 1)})
    asked = re.search(r"raise it to ([\d.]+) or more, or use scope: global", str(refused.value))
    assert asked is not None
    assert float(asked[1]) < 1
    selector(Rule("rows", final_sparsity=float(asked[1])), {"w": (total, 1)})


def test_a_single_group_per_layer_is_told_to_compete_with_the_others() -> None:
    for scope, expected in (("per_layer", "; use scope: global"), ("global", "; raise it to 0.5000 or more")):
        with pytest.raises(PruningError, match="removes none of them") as refused:
            selector(Rule("sublayers", scope=scope, final_sparsity=0.4), ATTENTION | UNITS)
        assert str(refused.value).endswith(expected)


def test_removing_nothing_is_no_mistake() -> None:
    selector(Rule("rows", final_sparsity=0.0), {"w": (4, 3)})


# The names that published models have

BODY = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
TEXT = BODY | {"vocab_size": 10, "max_position_embeddings": 16, "embedding_size": 12}
SPEECH = BODY | {"conv_dim": (4, 4), "conv_kernel": (2, 2), "conv_stride": (2, 2), "num_feat_extract_layers": 2,
                 "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}  # fmt: skip
ENCODERS: dict[str, dict[str, Any]] = {
    "Bert": TEXT,
    "Roberta": TEXT,
    "Electra": TEXT,
    "Albert": TEXT | {"num_hidden_groups": 2},
    "DistilBert": {"vocab_size": 10, "dim": 12, "n_layers": 2, "n_heads": 3, "hidden_dim": 20},
    "Wav2Vec2": SPEECH,
    "Hubert": SPEECH,
    "WavLM": SPEECH,
}
OUT_OF_HEADS = ("attention.output.dense.weight", "out_lin.weight", "out_proj.weight", "attention.dense.weight")


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_encoders_of_transformers_have_heads_units_and_sublayers(name: str) -> None:
    config = getattr(transformers, f"{name}Config")(**ENCODERS[name])
    model = getattr(transformers, f"{name}ForSequenceClassification")(config)
    shapes = {n: tuple(w.shape) for n, w in prunable_parameters(model, Prunable()).items()}
    assert len(shapes) == 12, sorted(shapes)
    attention = {n: shape for n, shape in shapes.items() if shape == (12, 12)}
    units = {n: shape for n, shape in shapes.items() if shape != (12, 12)}

    def cut(pattern: Any, chosen: dict[str, tuple[int, ...]]) -> list[Tiling]:
        return tilings(pattern, whole_shards(list(chosen), list(chosen.values())), config.num_attention_heads)

    heads = cut("heads", attention)
    assert [(t.num_groups, t.group_size, len(t.members)) for t in heads] == [(3, 4 * 4 * 12, 4)] * 2
    for tiling in heads:
        [out] = [list(attention)[m.index] for m in tiling.members if (m.rows, m.columns) == (12, 4)]
        assert out.endswith(OUT_OF_HEADS), "cut by columns"
        assert sum((m.rows, m.columns) == (4, 12) for m in tiling.members) == 3
    assert [(t.num_groups, t.group_size, len(t.members)) for t in cut("ffn_units", units)] == [(20, 24, 2)] * 2
    assert sorted((t.num_groups, t.group_size) for t in cut("sublayers", shapes)) == [(1, 480)] * 2 + [(1, 576)] * 2


def test_with_grouped_queries_a_key_value_head_goes_with_all_of_its_heads() -> None:
    """4 heads of 2 elements, 2 key-value heads; the smallest group is the second one, by its value alone."""
    model = Model(num_heads=4)
    for part, shape in (("q", (8, 3)), ("k", (4, 3)), ("v", (4, 3)), ("o", (3, 8))):
        model.add(f"model.layers.0.self_attn.{part}_proj.weight", np.ones(shape))
    model.arrays[2][2, 0] = 0.5
    found = select_on_ranks(Rule("heads"), model, None, 0.5)
    assert found[0] == [True] * 12 + [False] * 12  # heads 2 and 3 of q
    assert found[1] == found[2] == [True] * 6 + [False] * 6
    assert found[3] == ([True] * 4 + [False] * 4) * 3


def test_a_unit_of_a_gated_feed_forward_is_a_row_of_both_first_matrices() -> None:
    model = Model()
    for part, shape in (("gate", (3, 2)), ("up", (3, 2)), ("down", (2, 3))):
        model.add(f"model.layers.0.mlp.{part}_proj.weight", np.ones(shape))
    model.arrays[0][1, 0] = 0.5
    found = select_on_ranks(Rule("ffn_units"), model, None, 0.34)
    assert found == [[True, True, False, False, True, True]] * 2 + [[True, False, True] * 2]


@pytest.mark.parametrize("sizes", [(8, 3, 3, 8), (8, 4, 2, 8), (12, 8, 8, 12)])
def test_matrices_that_do_not_belong_to_the_heads_are_refused_and_not_cut_through(sizes: tuple[int, ...]) -> None:
    """4 heads: of 2 elements, where 3 is no multiple of 2; two sizes beside q's; 3 elements, where 8 is no multiple."""
    names = [f"layers.0.self_attn.{part}_proj.weight" for part in "qkvo"]
    shapes = {n: (8, size) if "o_proj" in n else (size, 8) for n, size in zip(names, sizes, strict=True)}
    with pytest.raises(PruningError, match="do not belong to 4 heads of one size"):
        selector(Rule("heads"), shapes, 4)
