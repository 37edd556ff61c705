"""Agreement of masks: by hand, against sets of positions, and against what random masks show."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunus.jobs.errors import PruningError
from prunus.jobs.sparsity.masks import PackedMask
from prunus.jobs.sparsity.overlap import Masks, Overlap, by_weight, compare, compare_packed, num_kept_packed, total


def test_comparison_by_hand() -> None:
    old = {"a": torch.tensor([True, True, False, False]), "b": torch.tensor([True])}
    new = {"a": torch.tensor([True, False, True, False]), "b": torch.tensor([True])}
    found = compare(old, new)
    assert found.flipped == 0.4  # a1 and a2 of 5
    assert found.iou_kept == 0.5  # a0, b0 of a0, a1, a2, b0
    assert found.iou_removed == 1 / 3  # a3 of a1, a2, a3
    # By chance a has 2 * 2 / 4 = 1 in common, which it has; b is all kept.
    assert found.random_iou_kept == 0.5
    assert found.random_iou_removed == 1 / 3
    assert by_weight(old, new) == {"a": Overlap(4, 2, 2, 1, 1.0), "b": Overlap(1, 1, 1, 1, 1.0)}


@st.composite
def two_masks(draw: st.DrawFn) -> tuple[Masks, Masks]:
    """Two masks of the same weights."""
    sizes = draw(st.dictionaries(st.sampled_from("abc"), st.integers(0, 20), max_size=3))

    def mask() -> Masks:
        return {
            n: torch.tensor(draw(st.lists(st.booleans(), min_size=k, max_size=k)), dtype=torch.bool)
            for n, k in sizes.items()
        }

    return mask(), mask()


@given(two_masks())
def test_against_sets_of_positions(masks: tuple[Masks, Masks]) -> None:
    def positions(mask: Masks, kept: bool) -> set[tuple[str, int]]:
        return {(name, i) for name, bits in mask.items() for i, bit in enumerate(bits.tolist()) if bit is kept}

    found = compare(*masks)
    for kept, iou in ((True, found.iou_kept), (False, found.iou_removed)):
        one, two = (positions(mask, kept) for mask in masks)
        assert iou == (len(one & two) / len(one | two) if one | two else 1.0)
    everything = sum(mask.numel() for mask in masks[0].values())
    differing = len(positions(masks[0], True) ^ positions(masks[1], True))
    assert found.flipped == (differing / everything if everything else 0.0)
    swapped = compare(masks[1], masks[0])
    assert (swapped.iou_kept, swapped.iou_removed, swapped.flipped) == (
        found.iou_kept,
        found.iou_removed,
        found.flipped,
    )
    assert total(by_weight(*masks).values()) == found


def packed_overlap(first: Masks, second: Masks) -> Overlap:
    one, two = PackedMask.of(first), PackedMask.of(second)
    return compare_packed(one, two, num_kept_packed(one), num_kept_packed(two))


@given(two_masks())
def test_packed_masks_agree_as_the_masks_do(masks: tuple[Masks, Masks]) -> None:
    assert packed_overlap(*masks) == compare(*masks)


@pytest.mark.parametrize("size", [63, 64, 65, 1000, 4096])
def test_whole_words_and_the_bytes_after_them_are_counted(size: int) -> None:
    draw = torch.Generator().manual_seed(size)
    one, two = ({"w": torch.rand(size, generator=draw) >= 0.5} for _ in range(2))
    assert packed_overlap(one, two).kept_both == int((one["w"] & two["w"]).sum())


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_random_masks_show_the_random_baseline(sparsity: float) -> None:
    size = 1_000_000
    draw = torch.Generator().manual_seed(0)
    one, two = ({"w": torch.rand(size, generator=draw) >= sparsity} for _ in range(2))
    found = compare(one, two)
    assert found.random_iou_kept == pytest.approx((1 - sparsity) / (1 + sparsity), abs=2e-3)
    assert found.random_iou_removed == pytest.approx(sparsity / (2 - sparsity), abs=2e-3)
    assert found.iou_kept == pytest.approx(found.random_iou_kept, abs=2e-3)
    assert found.iou_removed == pytest.approx(found.random_iou_removed, abs=2e-3)


def test_equal_masks_and_empty_masks_have_an_iou_of_1() -> None:
    nothing, everything = {"a": torch.zeros(3, dtype=torch.bool)}, {"a": torch.ones(3, dtype=torch.bool)}
    for mask in (nothing, everything, {}):
        found = compare(mask, mask)
        assert (found.flipped, found.iou_kept, found.iou_removed) == (0.0, 1.0, 1.0)
        assert (found.random_iou_kept, found.random_iou_removed) == (1.0, 1.0)


def test_masks_of_other_weights_are_refused() -> None:
    mask = {"a": torch.ones(3, dtype=torch.bool), "b": torch.ones(2, dtype=torch.bool)}
    with pytest.raises(PruningError, match="the second mask lacks 1 of 2 weights, b for one"):
        compare(mask, {"a": mask["a"]})
    with pytest.raises(PruningError, match="the first mask lacks 1 of 2 weights, b for one"):
        compare({"a": mask["a"]}, mask)
    with pytest.raises(PruningError, match=r"b is \[2\] in the first mask and \[1, 2\] in the second"):
        compare(mask, {**mask, "b": mask["b"].view(1, 2)})
