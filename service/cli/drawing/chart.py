"""A curve in characters: braille dots, 2 x 4 of them each."""

import math
from collections.abc import Sequence

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Bits of a braille character (Unicode, block U+2800) by column and row of the dot."""


def chart(values: Sequence[float], top: float, width: int, height: int) -> list[str]:
    """Draw values against their index with braille dots, 2 x 4 of them a character.

    Args:
        values: At least one; from 0 to ``top``.
        top: Value of the upper edge, > 0.
        width, height: Characters.

    Returns:
        ``height`` lines of ``width`` characters, the highest values first.
    """
    columns, rows = 2 * width, 4 * height
    cells = [[0] * width for _ in range(height)]
    last: int | None = None
    for column in range(columns):
        at = values[round(column / (columns - 1) * (len(values) - 1))]
        row = rows - 1 - min(rows - 1, max(0, math.floor(at / top * (rows - 1) + 0.5)))
        # A jump is drawn as a vertical line beside the dot before, so that the curve has no holes.
        previous = row if last is None or last == row else last + (1 if row > last else -1)
        for dot in range(min(row, previous), max(row, previous) + 1):
            cells[dot // 4][column // 2] |= _DOTS[column % 2][dot % 4]
        last = row
    return ["".join(chr(0x2800 + cell) for cell in line) for line in cells]
