"""How two masks of the same weights agree: exact counts, and what masks drawn at random would show.

With n positions, of which a mask keeps k1, another k2, and both keep b (parp.md, section 2.4; True keeps):

    IOU of kept positions      b / (k1 + k2 - b)                 at random  with b = k1 k2 / n
    IOU of removed positions   (n - k1 - k2 + b) / (n - b)       at random  with b = k1 k2 / n
    flipped                    (k1 + k2 - 2 b) / n

Two masks of one sparsity s agree by chance with (1 - s) / (1 + s) on the kept and s / (2 - s) on the removed positions,
so an IOU says something only beside its baseline. Counts of several weights add up.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prunus.configs.artifacts.mask_file import PackedMask, Shapes
from prunus.configs.artifacts.weight_file import num_ones

Kept = Mapping[str, int]
"""Weight name -> how many of its positions a mask keeps."""


@dataclass(frozen=True)
class Overlap:
    """Counts over one or more weights.

    Attributes:
        positions: n.
        kept_first: k1.
        kept_second: k2.
        kept_both: b.
        expected_both: b of masks that keep as many of each weight, drawn at random: the sum of k1 k2 / n.
    """

    positions: int = 0
    kept_first: int = 0
    kept_second: int = 0
    kept_both: int = 0
    expected_both: float = 0.0

    @property
    def flipped(self) -> float:
        """Share of the positions whose bit differs, in [0, 1]; 0 without positions."""
        differing = self.kept_first + self.kept_second - 2 * self.kept_both
        return differing / self.positions if self.positions else 0.0

    @property
    def iou_kept(self) -> float:
        """IOU of the kept positions, in [0, 1]; 1 where both are empty."""
        return self._iou_kept(self.kept_both)

    @property
    def iou_removed(self) -> float:
        """IOU of the removed positions, in [0, 1]; 1 where both are empty."""
        return self._iou_removed(self.kept_both)

    @property
    def random_iou_kept(self) -> float:
        """IOU of the kept positions at the mean overlap of random masks of the same sparsity per weight."""
        return self._iou_kept(self.expected_both)

    @property
    def random_iou_removed(self) -> float:
        """IOU of the removed positions at the mean overlap of random masks of the same sparsity per weight."""
        return self._iou_removed(self.expected_both)

    def _iou_kept(self, both: float) -> float:
        either = self.kept_first + self.kept_second - both
        return both / either if either else 1.0

    def _iou_removed(self, both: float) -> float:
        either = self.positions - both
        return (self.positions - self.kept_first - self.kept_second + both) / either if either else 1.0


def counted(positions: int, kept_first: int, kept_second: int, kept_both: int) -> Overlap:
    """Two masks of one weight, from the counts."""
    expected = kept_first * kept_second / positions if positions else 0.0
    return Overlap(positions, kept_first, kept_second, kept_both, expected)


def total(overlaps: Iterable[Overlap]) -> Overlap:
    """Add counts of several weights."""
    found = list(overlaps)
    return Overlap(
        sum(one.positions for one in found),
        sum(one.kept_first for one in found),
        sum(one.kept_second for one in found),
        sum(one.kept_both for one in found),
        sum(one.expected_both for one in found),
    )


def compare(first: PackedMask, second: PackedMask, kept_first: Kept, kept_second: Kept) -> Overlap:
    """Compare two masks of the same weights, with what each keeps counted before: 85M weights in 3 ms.

    Args:
        kept_first, kept_second: ``count_kept`` of them.
    """
    assert first.shapes == second.shapes, "masks of other weights: see why_other_weights"
    return total(
        counted(
            math.prod(second.shapes[name]),
            kept_first[name],
            kept_second[name],
            num_ones(first.bits[name] & bits),
        )
        for name, bits in second.bits.items()
    )


def why_other_weights(
    first: Shapes, second: Shapes, names: tuple[str, str] = ("the first mask", "the second mask")
) -> str:
    """Say why masks of these shapes cannot be compared; empty if they can.

    Args:
        names: How the masks are called.
    """
    for only, missing, which in ((first, second, names[1]), (second, first, names[0])):
        if lacking := [name for name in only if name not in missing]:
            return (
                f"{which} lacks {len(lacking)} of {len(only)} weights, {lacking[0]} for one; compare masks of the same "
                "model"
            )
    for name, shape in first.items():
        if shape != second[name]:
            return (
                f"{name} is {list(shape)} in {names[0]} and {list(second[name])} in {names[1]}; compare masks of the "
                "same model"
            )
    return ""
