"""Masks as tensors: bit order against numpy's ``packbits``, and what is done in place, by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunus.jobs.sparsity import arithmetic


@given(st.lists(st.booleans(), max_size=70))
def test_packing_is_numpys_little_bit_order_and_comes_back(bits: list[bool]) -> None:
    mask = torch.tensor(bits, dtype=torch.bool)
    packed = arithmetic.pack(mask)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == np.packbits(np.array(bits, dtype=bool), bitorder="little").tolist()
    assert torch.equal(arithmetic.unpack(packed, (len(bits),)), mask)


def test_the_first_element_is_the_lowest_bit_of_the_first_byte() -> None:
    mask = torch.zeros(2, 5, dtype=torch.bool)
    mask[0, 0] = mask[0, 1] = mask[1, 4] = True  # flat positions 0, 1 and 9
    assert arithmetic.pack(mask).tolist() == [0b11, 0b10]


def test_a_transposed_mask_is_packed_in_its_own_row_major_order() -> None:
    mask = torch.tensor([[True, False], [True, True], [False, False]]).T  # not contiguous
    assert arithmetic.pack(mask).tolist() == [0b010011]  # rows: 1 1 0 / 0 1 0
    assert torch.equal(arithmetic.unpack(arithmetic.pack(mask), (2, 3)), mask)


def test_sparsity_is_the_share_removed_over_all_positions() -> None:
    both = {"a": torch.tensor([True, False, False, False]), "b": torch.ones(4, dtype=torch.bool)}
    assert arithmetic.sparsity(both) == 0.375
    assert arithmetic.sparsity({}) == 0.0


MANY = 150_000  # several pieces, the last one not whole


def random_mask(seed: int) -> torch.Tensor:
    return torch.rand(MANY, generator=torch.Generator().manual_seed(seed)) > 0.5


def test_a_mask_is_overwritten_where_it_lies_and_counts_are_told() -> None:
    old, new = random_mask(1), random_mask(2)
    expected = (int(new.sum()), int((old & new).sum()))
    mask = old.clone()
    assert arithmetic.replace(mask, new) == expected
    assert torch.equal(mask, new)
    square = torch.ones(2, 3, dtype=torch.bool)
    turned = torch.tensor([[True, False], [False, True], [True, False]]).T  # not contiguous
    assert arithmetic.replace(square, turned) == (3, 3)
    assert torch.equal(square, turned)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cleared_values_are_zero_whatever_they_were_and_kept_ones_are_untouched(dtype: torch.dtype) -> None:
    keep = random_mask(1)
    values = torch.randn(MANY, generator=torch.Generator().manual_seed(2)).to(dtype)
    values[:4000:4] = float("nan")
    values[1:4000:4] = float("-inf")
    cleared = [values.clone(), values.clone()]
    arithmetic.clear(cleared, keep)
    for one in cleared:
        assert torch.equal(one[~keep], torch.zeros_like(one[~keep]))
        assert not torch.signbit(one[~keep]).any()
        assert torch.equal(one[keep].nan_to_num(7.0), values[keep].nan_to_num(7.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_go_to_the_hidden_ones_and_come_back_bit_by_bit(dtype: torch.dtype) -> None:
    before, after = random_mask(1), random_mask(2)
    dense = torch.randn(MANY, generator=torch.Generator().manual_seed(3)).to(dtype)
    weights, hidden, moment = dense * before, dense * ~before, torch.ones(MANY, dtype=dtype)
    arithmetic.clear([weights, moment], after, hidden)
    assert torch.equal(weights, torch.where(after, dense, 0.0))
    assert torch.equal(hidden, torch.where(after, 0.0, dense))
    assert torch.equal(moment, after.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_left_outside_a_mask_is_counted_but_not_a_negative_zero(dtype: torch.dtype) -> None:
    keep = random_mask(1)
    values = (torch.randn(MANY, generator=torch.Generator().manual_seed(2)) * keep).to(dtype)
    gone = (~keep).nonzero().view(-1)
    values[gone] = -0.0
    assert arithmetic.count_outside(values, keep) == 0
    values[gone[0]], values[gone[-1]], values[gone[70]] = -(2.0**-24), float("nan"), 1.0  # fp16's least
    assert arithmetic.count_outside(values, keep) == 3
