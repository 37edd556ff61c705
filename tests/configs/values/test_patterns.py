"""Patterns as people write them: what is read, what is refused, and what does not go together."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.configs.methods.gradual_magnitude import GradualMagnitude
from prunus.configs.values.patterns import Blocks, NOfM, parse_pattern
from tests.configs.recipe_texts import JOB, campaign, load, refusal


def with_method(fields: str) -> str:
    return JOB + f"method: {{name: gradual_magnitude, {fields}}}\n"


def read(fields: str, *overrides: str) -> GradualMagnitude:
    [spec] = load(with_method(fields), *overrides).jobs
    assert isinstance(spec.method, GradualMagnitude)
    return spec.method


# One word


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unstructured", None),
        ("2:4", NOfM(2, 4)),
        ("1:2", NOfM(1, 2)),
        ("7:16", NOfM(7, 16)),
        ("9998:9999", NOfM(9998, 9999)),
        ("4x4", Blocks(4, 4)),
        ("1x8", Blocks(1, 8)),
        ("8x1", Blocks(8, 1)),
        ("rows", "rows"),
        ("columns", "columns"),
        ("heads", "heads"),
        ("ffn_units", "ffn_units"),
        ("sublayers", "sublayers"),
    ],
)
def test_a_pattern_is_read(text: str, expected: object) -> None:
    assert parse_pattern(text) == expected
    assert read(f"final_sparsity: {0.5 if not isinstance(expected, NOfM) else expected.sparsity!r}, pattern: {text}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4:2", "4:2 keeps 4 of 2; the first number must be above 0 and below the second"),
        ("4:4", "4:4 keeps 4 of 4"),
        ("0:4", "0:4 keeps 0 of 4"),
        ("0:0", "0:0 keeps 0 of 0"),
        ("1x1", "a block of 1x1 is no block; use unstructured, or sizes of at least 1 and not both 1"),
        ("0x4", "a block of 0x4 is no block"),
        ("4x0", "a block of 4x0 is no block"),
        ("", "'' is no pattern; use unstructured, N:M (2:4), RxC (4x4) or one of rows, columns, heads, ffn_units, "
         "sublayers"),
        *((text, f"{text!r} is no pattern") for text in (
            "2 : 4", " 2:4", "2:4 ", "2:4\n", "2:", ":4", "-2:4", "2.0:4", "2:4:8", "10000:20000", "4X4", "4 x 4",
            "4*4", "x4", "4x", "4x4x4", "-4x4", "Rows", "row", "head", "none", "2/4", "Unstructured",
        )),
    ],
)  # fmt: skip
def test_a_word_that_is_no_pattern_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
        parse_pattern(text)


@given(st.text(max_size=12))
def test_any_text_is_a_pattern_or_refused_with_what_may_be_written(text: str) -> None:
    try:
        parse_pattern(text)
    except ValueError as error:
        assert any(said in str(error) for said in ("is no pattern; use", "is no block; use", "must be above 0"))


def test_digits_of_other_scripts_are_no_pattern() -> None:
    with pytest.raises(ValueError, match="is no pattern"):
        parse_pattern("٢:٤")


@pytest.mark.parametrize(("keep", "of", "removed"), [(2, 4, 0.5), (1, 4, 0.75), (7, 8, 0.125), (1, 3, 2 / 3)])
def test_n_of_m_removes_the_rest(keep: int, of: int, removed: float) -> None:
    assert NOfM(keep, of).sparsity == pytest.approx(removed, abs=1e-15)


# Through the recipe


@pytest.mark.parametrize("text", ["2:4", "'2:4'", '"2:4"'])
def test_two_of_four_is_text_and_no_number_of_seconds(text: str) -> None:
    assert read(f"final_sparsity: 0.5, pattern: {text}").pattern == "2:4"


def test_two_of_four_is_text_on_the_command_line_and_in_a_matrix() -> None:
    assert read("final_sparsity: 0.5", "method.pattern=2:4").pattern == "2:4"
    text = with_method("final_sparsity: 0.5, pattern: '${matrix.p}'") + "matrix: {p: [2:4, 1:2, 8:16]}\n"
    patterns = [spec.method.pattern for spec in load(campaign(text)).jobs]  # type: ignore[union-attr]
    assert patterns == ["2:4", "1:2", "8:16"]


def test_the_default_is_unstructured_per_layer() -> None:
    method = read("final_sparsity: 0.5")
    assert (method.pattern, method.scope, method.norm, method.group_by) == ("unstructured", "per_layer", "l1", None)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("final_sparsity: 0.5, pattern: '4 4'", "r.yaml:5: method.pattern: '4 4' is no pattern; use unstructured, N:M"),
        ("final_sparsity: 0.5, pattern: 4", "r.yaml:5: method.pattern: must be text, got 4"),
        ("final_sparsity: 0.5, pattern: null", "r.yaml:5: method.pattern: must be text, got null"),
        ("final_sparsity: 0.5, pattern: [2, 4]", "r.yaml:5: method.pattern: must be text, got [2, 4]"),
        ("final_sparsity: 0.9, pattern: 2:4",
         "r.yaml:5: method: pattern 2:4 removes 0.5 of the weights, final_sparsity is 0.9; set final_sparsity: 0.5"),
        ("final_sparsity: 0.5, pattern: 1:4", "set final_sparsity: 0.75"),
        ("final_sparsity: 0.5, pattern: 2:4, scope: global",
         "pattern 2:4 decides every 4 weights alone: leave scope out"),
        ("final_sparsity: 0.5, pattern: 2:4, scope: erk", "pattern 2:4 decides every 4 weights alone: leave scope out"),
        ("final_sparsity: 0.5, pattern: 2:4, scope: per_group, group_by: '(.)'", "leave scope out"),
        ("final_sparsity: 0.5, pattern: 2:4, norm: l2", "norm l2 scores groups; pattern 2:4 has none: leave norm out"),
        ("final_sparsity: 0.5, norm: mean", "norm mean scores groups; pattern unstructured has none: leave norm out"),
        ("final_sparsity: 0.5, norm: l3", "r.yaml:5: method.norm: must be 'l1', 'l2' or 'mean', got l3"),
        ("final_sparsity: 0.5, scope: layer", "method.scope: must be 'per_layer', 'global', 'per_group' or 'erk'"),
        ("final_sparsity: 0.5, schedule: step", "method.schedule: must be 'cubic', 'linear' or 'constant', got step"),
        ("final_sparsity: 0.5, pattern: 4x4, scope: erk",
         "scope erk counts single weights, pattern 4x4 groups; use scope global"),
        ("final_sparsity: 0.5, pattern: heads, scope: erk", "scope erk counts single weights, pattern heads groups"),
        ("final_sparsity: 0.5, group_by: '(.)'",
         "group_by and scope: per_group go together; give both or neither"),
        ("final_sparsity: 0.5, scope: global, group_by: '(.)'", "group_by and scope: per_group go together"),
        ("final_sparsity: 0.5, scope: per_group", "group_by and scope: per_group go together; give both or neither"),
        (r"final_sparsity: 0.5, scope: per_group, group_by: 'layer\.\d+'",
         r"group_by 'layer\\.\\d+' has no bracket to name the group by"),
        ("final_sparsity: 0.5, scope: per_group, group_by: '(?:layer)'", "has no bracket to name the group by"),
        ("final_sparsity: 0.5, scope: per_group, group_by: '(layer'", "group_by is not a regular expression: '(layer'"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(fields: str, expected: str) -> None:
    assert expected in refusal(with_method(fields))


@pytest.mark.parametrize(
    "fields",
    [
        "pattern: 4x4, norm: l2, scope: global",
        "pattern: heads, norm: mean",
        r"pattern: rows, scope: per_group, group_by: 'layer\.(\d+)\.'",
        r"scope: per_group, group_by: 'layer\.(\d+)\.'",
        "scope: erk",
        "pattern: 2:4, scope: per_layer, norm: l1",
        "pattern: sublayers, scope: global, schedule: constant",
    ],
)
def test_what_goes_together_is_taken(fields: str) -> None:
    read(f"final_sparsity: 0.5, {fields}")


@pytest.mark.parametrize("pattern", ["1:3", "2:3", "1:6", "3:7", "5:12", "1:7", "1:4096", "4999:9998"])
def test_the_sparsity_that_the_message_asks_for_is_taken(pattern: str) -> None:
    message = refusal(with_method(f"final_sparsity: 0.01, pattern: '{pattern}'"))
    asked = re.search(r"set final_sparsity: (\S+)$", message)
    assert asked is not None
    assert read(f"final_sparsity: {asked[1]}, pattern: '{pattern}'").pattern == pattern
