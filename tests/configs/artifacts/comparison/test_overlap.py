"""Agreement of masks: by hand, against sets of positions, and against what random masks show."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from prunus.configs.artifacts.comparison.overlap import Overlap, compare, counted, total, why_other_weights
from prunus.configs.artifacts.mask_file import PackedMask

Masks = dict[str, NDArray[np.bool_]]


def overlap(first: Masks, second: Masks) -> Overlap:
    one, two = PackedMask.of(first), PackedMask.of(second)
    return compare(one, two, one.count_kept(), two.count_kept())


def test_comparison_by_hand() -> None:
    old = {"a": np.array([True, True, False, False]), "b": np.array([True])}
    new = {"a": np.array([True, False, True, False]), "b": np.array([True])}
    found = overlap(old, new)
    assert found.flipped == 0.4  # a1 and a2 of 5
    assert found.iou_kept == 0.5  # a0, b0 of a0, a1, a2, b0
    assert found.iou_removed == 1 / 3  # a3 of a1, a2, a3
    # By chance a has 2 * 2 / 4 = 1 in common, which it has; b is all kept.
    assert found.random_iou_kept == 0.5
    assert found.random_iou_removed == 1 / 3
    assert found == total([Overlap(4, 2, 2, 1, 1.0), Overlap(1, 1, 1, 1, 1.0)])
    assert counted(4, 2, 2, 1) == Overlap(4, 2, 2, 1, 1.0)


@st.composite
def two_masks(draw: st.DrawFn) -> tuple[Masks, Masks]:
    """Two masks of the same weights."""
    sizes = draw(st.dictionaries(st.sampled_from("abc"), st.integers(0, 20), max_size=3))

    def keep(size: int) -> NDArray[np.bool_]:
        return np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype=bool)

    def mask() -> Masks:
        return {name: keep(size) for name, size in sizes.items()}

    return mask(), mask()


@given(two_masks())
def test_against_sets_of_positions(masks: tuple[Masks, Masks]) -> None:
    def positions(mask: Masks, kept: bool) -> set[tuple[str, int]]:
        return {(name, i) for name, bits in mask.items() for i, bit in enumerate(bits.tolist()) if bit is kept}

    found = overlap(*masks)
    for kept, iou in ((True, found.iou_kept), (False, found.iou_removed)):
        one, two = (positions(mask, kept) for mask in masks)
        assert iou == (len(one & two) / len(one | two) if one | two else 1.0)
    everything = sum(mask.size for mask in masks[0].values())
    differing = len(positions(masks[0], True) ^ positions(masks[1], True))
    assert found.flipped == (differing / everything if everything else 0.0)
    swapped = overlap(masks[1], masks[0])
    assert (swapped.iou_kept, swapped.iou_removed, swapped.flipped) == (
        found.iou_kept,
        found.iou_removed,
        found.flipped,
    )


@pytest.mark.parametrize("size", [63, 64, 65, 1000, 4096])
def test_whole_words_and_the_bytes_after_them_are_counted(size: int) -> None:
    draw = np.random.default_rng(size)
    one, two = ({"w": draw.random(size) >= 0.5} for _ in range(2))
    assert overlap(one, two).kept_both == int((one["w"] & two["w"]).sum())


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_random_masks_show_the_random_baseline(sparsity: float) -> None:
    size = 1_000_000
    draw = np.random.default_rng(0)
    one, two = ({"w": draw.random(size) >= sparsity} for _ in range(2))
    found = overlap(one, two)
    assert found.random_iou_kept == pytest.approx((1 - sparsity) / (1 + sparsity), abs=2e-3)
    assert found.random_iou_removed == pytest.approx(sparsity / (2 - sparsity), abs=2e-3)
    assert found.iou_kept == pytest.approx(found.random_iou_kept, abs=2e-3)
    assert found.iou_removed == pytest.approx(found.random_iou_removed, abs=2e-3)


def test_equal_masks_and_empty_masks_have_an_iou_of_1() -> None:
    nothing, everything = {"a": np.zeros(3, dtype=bool)}, {"a": np.ones(3, dtype=bool)}
    for mask in (nothing, everything, {}):
        found = overlap(mask, mask)
        assert (found.flipped, found.iou_kept, found.iou_removed) == (0.0, 1.0, 1.0)
        assert (found.random_iou_kept, found.random_iou_removed) == (1.0, 1.0)


def test_masks_of_other_weights_are_told_apart() -> None:
    shapes = {"a": (3,), "b": (2,)}
    assert why_other_weights(shapes, dict(reversed(shapes.items()))) == ""
    said = why_other_weights(shapes, {"a": (3,)})
    assert said == "the second mask lacks 1 of 2 weights, b for one; compare masks of the same model"
    said = why_other_weights({"a": (3,)}, shapes, ("x", "y"))
    assert said == "x lacks 1 of 2 weights, b for one; compare masks of the same model"
    said = why_other_weights(shapes, {**shapes, "b": (1, 2)})
    assert said.startswith("b is [2] in the first mask and [1, 2] in the second mask; compare")
