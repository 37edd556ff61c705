"""Patterns: which weights go together. A word in a recipe, checked before anything is queued.

unstructured          every weight by itself
N:M   (2:4)           of M consecutive weights along the input dimension, N stay
RxC   (4x4, 1x8)      blocks of R outputs by C inputs
rows, columns         all weights of an output, or of an input, of one matrix
heads, ffn_units      an attention head (rows of q, k, v and columns of the output matrix), a unit of the feed-forward
                      part (a row of its first matrix and a column of its second)
sublayers             the matrices of an attention, or those of a feed-forward part
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

Structure = Literal["rows", "columns", "heads", "ffn_units", "sublayers"]
UNSTRUCTURED = "unstructured"
_STRUCTURES = ("rows", "columns", "heads", "ffn_units", "sublayers")


@dataclass(frozen=True)
class NOfM:
    """Of ``of`` consecutive weights along the input dimension, ``keep`` stay."""

    keep: int
    of: int

    @property
    def sparsity(self) -> float:
        """Share removed, in (0, 1)."""
        return 1.0 - self.keep / self.of

    def num_removed(self, sparsity: float, final_sparsity: float) -> int:
        """How many of each group go at a sparsity on the way to the final one: the floor, at the end the rest."""
        # The final sparsity may be written 0.666667 or 0.66; its floor would be one too few.
        return self.of - self.keep if sparsity >= final_sparsity else count_to_remove(sparsity, self.of)


@dataclass(frozen=True)
class Blocks:
    """Blocks of ``rows`` outputs by ``columns`` inputs."""

    rows: int
    columns: int


def count_to_remove(sparsity: float, numel: int) -> int:
    """How many of ``numel`` weights a sparsity removes: the floor, as published.

    A product that is whole but for the rounding of floats counts as whole (0.29 * 100 is 28.999999999999996).
    """
    exact = sparsity * numel
    nearest = round(exact)
    # The schedule's arithmetic loses a few of the 53 bits; 1e-12 is far above that, far below one weight in a billion.
    return nearest if abs(exact - nearest) < 1e-12 * max(1.0, exact) else int(exact)


def parse_pattern(text: str) -> NOfM | Blocks | Structure | None:
    """Read a pattern; None is unstructured.

    Raises:
        ValueError: It is none, or a size that says nothing.
    """
    if text == UNSTRUCTURED:
        return None
    if text in _STRUCTURES:
        return text  # type: ignore[return-value]
    if found := re.fullmatch(r"([0-9]{1,4}):([0-9]{1,4})", text):
        keep, of = int(found[1]), int(found[2])
        if not 0 < keep < of:
            raise ValueError(f"{text} keeps {keep} of {of}; the first number must be above 0 and below the second")
        return NOfM(keep, of)
    if found := re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4})", text):
        rows, columns = int(found[1]), int(found[2])
        if rows < 1 or columns < 1 or rows * columns == 1:
            raise ValueError(
                f"a block of {text} is no block; use {UNSTRUCTURED}, or sizes of at least 1 and not both 1"
            )
        return Blocks(rows, columns)
    raise ValueError(
        f"{text!r} is no pattern; use {UNSTRUCTURED}, N:M (2:4), RxC (4x4) or one of {', '.join(_STRUCTURES)}"
    )


def _checked(value: Any) -> Any:
    if isinstance(value, str):
        parse_pattern(value)
    return value


Pattern = Annotated[str, BeforeValidator(_checked)]
"""A string that :func:`parse_pattern` reads."""
