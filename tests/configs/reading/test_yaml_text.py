"""Reading YAML: what stays a string, what is refused, and that nothing runs away."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.configs import ConfigError
from prunus.configs.reading.yaml_text import MAX_BYTES, parse


def value(text: str) -> object:
    return parse(f"x: {text}", "r.yaml")[0]["x"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("NO", "NO"),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("5e-5", 5e-5), ("1e3", 1000.0), ("1.", 1.0), (".5", 0.5), ("-2.5E+2", -250.0),
        ("012", 12), ("0o17", 15), ("0x10", 16), ("-7", -7), ("+7", 7),
        ("1:30", "1:30"), ("2020-01-01", "2020-01-01"), ("1_000", "1_000"), ("0b11", "0b11"), ("=", "="),
        (".nan", ".nan"), (".inf", ".inf"), ("1e", "1e"), ("e5", "e5"), ("0.9", 0.9), ("'5'", "5"),
    ],
)  # fmt: skip
def test_a_scalar_means_what_yaml_1_2_says(text: str, expected: object) -> None:
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb:\n\tc: 2\n", 3, "indent with spaces, not tabs"),
        ("a: 1\nb: 2\na: 3\n", 3, "the key 'a' stands twice (first on line 1); keep one of the two"),
        ("a:\n  b: 1\n  b: 2\n", 3, "a: the key 'b' stands twice"),
        ("a: [1, 2\n", 2, "not YAML"),
        ("a: 1\n---\nb: 2\n", 2, "keep one document"),
        ("a: !!python/object:os.system x\n", 1, "is not read; write the value without a tag"),
        ("a: !!binary aGk=\n", 1, "is not read"),
        ("a: 1\n5: b\n", 2, 'the key 5 is not text; write "5" with quotes'),
        ("? [a, b]\n: c\n", 1, "a key must be a plain word"),
        ("a: 1\nb: 9" + "9" * 30, 2, "is too large"),
        ("a: 9" + "9" * 5000, 1, "is too large"),
        ("a: 1e999", 1, "is too large"),
        ("a: 1\nb: \x07", 2, "the character '\\x07' is not allowed; save the file as plain UTF-8 text"),
        ('a: "x\\0y"', 1, "has a control character"),
        ('a: "\\ud800"', 1, "has a control character"),
        ("a: 1\nb: *x\n", 2, "undefined alias"),
        ("a: &x {b: *x}\n", 1, "alias"),
        ("a: " + "[" * 3000 + "]" * 3000, 1, "nested more than 50 levels deep"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "r.yaml")
    assert str(caught.value).startswith(f"r.yaml:{line}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_an_empty_file_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^r\.yaml: is empty; see `prunus recipes` for examples$"):
        parse(text, "r.yaml")


def test_a_huge_file_is_refused_before_it_is_read() -> None:
    with pytest.raises(ConfigError, match="larger than 1,000,000 characters; split it"):
        parse("a: " + "x" * MAX_BYTES, "r.yaml")


def test_nested_aliases_cannot_stand_for_billions_of_values() -> None:
    # Nine levels of nine: 81 aliases for 387 million values.
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    start = time.monotonic()
    with pytest.raises(ConfigError, match="more than 200,000 values, aliases followed"):
        parse("\n".join(levels), "r.yaml")
    assert time.monotonic() - start < 20


def test_more_than_a_hundred_aliases_are_refused() -> None:
    assert parse("a: &a 1\nb: [" + ", ".join(["*a"] * 100) + "]", "r.yaml")[0]["b"] == [1] * 100
    with pytest.raises(ConfigError, match="more than 100 aliases"):
        parse("a: &a 1\nb: [" + ", ".join(["*a"] * 101) + "]", "r.yaml")


def test_an_alias_is_a_copy() -> None:
    document, _ = parse("a: &a {k: 1}\nb: *a\n", "r.yaml")
    document["a"]["k"] = 2
    assert document["b"] == {"k": 1}


def test_lines_are_those_of_keys_and_items() -> None:
    _, lines = parse("a:\n  - b: 1\n  - c\nd: {e: 2}\n", "r.yaml")
    assert lines == {(): 1, ("a",): 1, ("a", 0): 2, ("a", 0, "b"): 2, ("a", 1): 3, ("d",): 4, ("d", "e"): 4}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.text(
        alphabet=st.one_of(st.characters(), st.sampled_from(list("{}[]:,-&*!|>'\"%@`#? \n\t~<=0159.eax"))), max_size=60
    )
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text, "r.yaml")
    except ConfigError as error:
        assert str(error).startswith("r.yaml")
