"""Dots counted by hand."""

from prunus.service.cli.drawing.chart import chart


def test_a_rising_line_dot_by_dot() -> None:
    # 2 characters are 4 columns and 4 rows of dots: one dot in each, from the lower left to the upper right.
    assert chart([0.0, 1.0, 2.0, 3.0], 3.0, 2, 1) == ["⡠⠊"]
    assert chart([3.0], 3.0, 2, 1) == ["⠉⠉"]
    assert chart([0.0], 3.0, 1, 2) == ["⠀", "⣀"]


def test_a_jump_leaves_no_hole() -> None:
    left_below, right_above = 0x40, 0x08 + 0x10 + 0x20
    assert chart([0.0, 1.0], 1.0, 1, 1) == [chr(0x2800 + left_below + right_above)]
