"""A few of many names."""

import pytest

from prunus.configs.values.wording import listed


@pytest.mark.parametrize(
    ("names", "most", "words"),
    [
        ([], 3, "none"),
        (["a"], 3, "a"),
        (["a", "b", "c"], 3, "a, b, c"),
        (["a", "b", "c", "d"], 3, "a, b, c and 1 more"),
        (list("abcdefgh"), 5, "a, b, c, d, e and 3 more"),
        ({"x": 1, "y": 2}, 1, "x and 1 more"),
        ((1, 2), 3, "1, 2"),
    ],
)
def test_the_first_few_are_named_and_the_others_counted(names: list[str], most: int, words: str) -> None:
    assert listed(names, most) == words
