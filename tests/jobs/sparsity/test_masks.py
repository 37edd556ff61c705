"""Masks as data: bit order against numpy's ``packbits``, the file, its damage, and comparisons by hand."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import save_file

from prunus.jobs.errors import PruningError
from prunus.jobs.sparsity import masks


def example() -> masks.Masks:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.rand(shape, generator=generator) > 0.5 for name, shape in {"b": (3, 7), "a": (5,)}.items()}


@given(st.lists(st.booleans(), max_size=70))
def test_packing_is_numpys_little_bit_order_and_comes_back(bits: list[bool]) -> None:
    mask = torch.tensor(bits, dtype=torch.bool)
    packed = masks.pack(mask)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == np.packbits(np.array(bits, dtype=bool), bitorder="little").tolist()
    assert torch.equal(masks.unpack(packed, (len(bits),)), mask)


def test_the_first_element_is_the_lowest_bit_of_the_first_byte() -> None:
    mask = torch.zeros(2, 5, dtype=torch.bool)
    mask[0, 0] = mask[0, 1] = mask[1, 4] = True  # flat positions 0, 1 and 9
    assert masks.pack(mask).tolist() == [0b11, 0b10]


def test_a_transposed_mask_is_packed_in_its_own_row_major_order() -> None:
    mask = torch.tensor([[True, False], [True, True], [False, False]]).T  # not contiguous
    assert masks.pack(mask).tolist() == [0b010011]  # rows: 1 1 0 / 0 1 0
    assert torch.equal(masks.unpack(masks.pack(mask), (2, 3)), mask)


def test_a_file_comes_back_equal_and_any_reader_of_safetensors_understands_it(tmp_path: Path) -> None:
    wanted = example()
    path = masks.save(wanted, tmp_path / "masks" / "step-3", masks.Facts("locked", 3))
    for place in (path, path.parent):
        loaded = masks.load(place)
        assert list(loaded) == ["b", "a"]
        assert all(torch.equal(loaded[name], wanted[name]) for name in wanted)
    raw = load_file(path)
    assert raw["b"].tolist() == np.packbits(wanted["b"].numpy().ravel(), bitorder="little").tolist()
    with safe_open(path, framework="np") as opened:
        facts = opened.metadata()
    assert {key: facts[key] for key in ("format", "version", "method", "step")} == {
        "format": "prunus-mask",
        "version": "1",
        "method": "locked",
        "step": "3",
    }
    assert json.loads(facts["shapes"]) == {"b": [3, 7], "a": [5]}
    assert [p.name for p in path.parent.iterdir()] == ["mask.safetensors"]


def test_one_bit_per_weight_is_stored(tmp_path: Path) -> None:
    path = masks.save({"w": torch.ones(800, 1000, dtype=torch.bool)}, tmp_path, masks.Facts("dense", 0))
    assert 100_000 <= path.stat().st_size < 101_000


def test_the_digest_depends_on_bits_names_and_shapes_but_not_on_order() -> None:
    one = example()
    assert masks.digest(one) == masks.digest(dict(reversed(one.items())))
    flipped = {**one, "a": one["a"] ^ torch.tensor([False, False, True, False, False])}
    reshaped = {**one, "b": one["b"].view(7, 3)}
    renamed = {"b": one["b"], "c": one["a"]}
    assert len({masks.digest(m) for m in (one, flipped, reshaped, renamed)}) == 4


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = masks.save(example(), tmp_path, masks.Facts("locked", 0))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(PruningError, match="is damaged: its bits do not match its digest; fetch it again"):
        masks.load(path)


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_file_cut_short_cannot_be_read_as_a_mask(tmp_path: Path, length: int) -> None:
    path = masks.save(example(), tmp_path, masks.Facts("locked", 0))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(PruningError, match=r"mask\.safetensors cannot be read as a mask"):
        masks.load(path)


def test_a_mask_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PruningError, match="does not exist; give a job or directory that has a mask"):
        masks.load(tmp_path)


def test_other_safetensors_are_no_masks(tmp_path: Path) -> None:
    save_file({"w": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(PruningError, match=r"model\.safetensors is not a prunus mask of version 1"):
        masks.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "shapes",
    [
        '{"b": [3, 7], "a": [6000]}', '{"b": [3, 7], "z": [5]}', "[", None, "[]", "7", '{"b": 21, "a": 5}',
        '{"b": [3, "7"], "a": [5]}', '{"b": [-3, -7], "a": [5]}', '{"b": [3, 7.5], "a": [5]}', '{"b": null, "a": [5]}',
    ],
)  # fmt: skip
def test_a_mask_whose_facts_do_not_fit_its_bits_is_refused(tmp_path: Path, shapes: str | None) -> None:
    path = masks.save(example(), tmp_path, masks.Facts("locked", 0))
    with safe_open(path, framework="pt") as opened:
        facts = opened.metadata()
    facts = {key: value for key, value in facts.items() if key != "shapes"} | ({"shapes": shapes} if shapes else {})
    save_file({name: masks.pack(mask) for name, mask in example().items()}, path, facts)
    with pytest.raises(PruningError, match="cannot be read as a mask"):
        masks.load(path)


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        (torch.zeros(2, dtype=torch.uint8), "2 bytes"),  # 5 elements fit 1
        (torch.zeros(0, dtype=torch.uint8), "0 bytes"),
        (torch.zeros(1, 1, dtype=torch.uint8), "1 bytes"),
    ],
)
def test_bytes_that_are_too_many_or_too_few_for_the_shape_are_refused(
    tmp_path: Path, stored: torch.Tensor, found: str
) -> None:
    path = masks.save(example(), tmp_path, masks.Facts("locked", 0))
    with safe_open(path, framework="pt") as opened:
        facts = opened.metadata()
    save_file({"b": masks.pack(example()["b"]), "a": stored}, path, facts)
    message = rf"cannot be read as a mask: a has {found}, which do not fit its shape \(5,\)"
    with pytest.raises(PruningError, match=message):
        masks.load(path)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
def test_a_mask_of_numbers_that_are_no_bytes_is_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    """Even with a digest that fits."""
    path = masks.save({"w": torch.ones(8, dtype=torch.bool)}, tmp_path, masks.Facts("locked", 0))
    with safe_open(path, framework="pt") as opened:
        facts = opened.metadata()
    stored = torch.ones(1, dtype=dtype)
    facts["digest"] = hashlib.sha256(b'["w", [8]]' + stored.numpy().tobytes()).hexdigest()
    save_file({"w": stored}, path, facts)
    with pytest.raises(PruningError, match="cannot be read as a mask"):
        masks.load(path)


def test_a_mask_says_its_pattern_its_base_and_its_parents(tmp_path: Path) -> None:
    parents = {"teacher": "job:t sha256:12", "model": "org/\u00fc sha256:ab"}
    path = masks.save(example(), tmp_path, masks.Facts("gradual_magnitude", 90, "2:4", "f" * 64, parents))
    with safe_open(path, framework="np") as opened:
        facts = opened.metadata()
    assert (facts["pattern"], facts["base_sha256"], json.loads(facts["parents"])) == ("2:4", "f" * 64, parents)
    wanted = example()
    assert all(torch.equal(mask, wanted[name]) for name, mask in masks.load(path).items())


def test_a_mask_of_unknown_origin_says_so_with_empty_facts(tmp_path: Path) -> None:
    path = masks.save(example(), tmp_path, masks.Facts("locked", 0))
    with safe_open(path, framework="np") as opened:
        facts = opened.metadata()
    assert (facts["pattern"], facts["base_sha256"], facts["parents"]) == ("unstructured", "", "{}")


def test_the_origin_is_no_part_of_the_masks_digest(tmp_path: Path) -> None:
    origins = [masks.Facts("locked", 0), masks.Facts("gradual_magnitude", 9, "4x4", "ab", {"model": "x"})]
    digests = set()
    for number, origin in enumerate(origins):
        with safe_open(masks.save(example(), tmp_path / str(number), origin), framework="np") as opened:
            digests.add(opened.metadata()["digest"])
    assert digests == {masks.digest(example())}


def test_the_digest_of_weights_depends_on_values_names_and_shapes_but_not_on_order_or_layout() -> None:
    one = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor([1.0, -0.5])}
    same = masks.weights_digest(one)
    assert len(bytes.fromhex(same)) == 32
    assert masks.weights_digest(dict(reversed(one.items()))) == same
    transposed = one["b"].T.contiguous().T  # equal values, another layout
    assert not transposed.is_contiguous()
    assert masks.weights_digest({**one, "b": transposed}) == same
    assert masks.weights_digest({name: torch.nn.Parameter(weight) for name, weight in one.items()}) == same
    others = [
        {**one, "b": torch.arange(6.0).view(3, 2)},
        {"b": one["b"], "c": one["a"]},
        {"b": one["b"]},
        {**one, "a": torch.tensor([1.0, 0.5])},
        {**one, "a": torch.tensor([1.0 + 2**-23, -0.5])},
    ]
    assert len({same, *map(masks.weights_digest, others)}) == 6


def test_sparsity_is_the_share_removed_over_all_positions() -> None:
    both = {"a": torch.tensor([True, False, False, False]), "b": torch.ones(4, dtype=torch.bool)}
    assert masks.sparsity(both) == 0.375
    assert masks.sparsity({}) == 0.0


MANY = 150_000  # several pieces, the last one not whole


def random_mask(seed: int) -> torch.Tensor:
    return torch.rand(MANY, generator=torch.Generator().manual_seed(seed)) > 0.5


def test_a_mask_is_overwritten_where_it_lies_and_counts_are_told() -> None:
    old, new = random_mask(1), random_mask(2)
    expected = (int(new.sum()), int((old & new).sum()))
    mask = old.clone()
    assert masks.replace(mask, new) == expected
    assert torch.equal(mask, new)
    square = torch.ones(2, 3, dtype=torch.bool)
    turned = torch.tensor([[True, False], [False, True], [True, False]]).T  # not contiguous
    assert masks.replace(square, turned) == (3, 3)
    assert torch.equal(square, turned)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cleared_values_are_zero_whatever_they_were_and_kept_ones_are_untouched(dtype: torch.dtype) -> None:
    keep = random_mask(1)
    values = torch.randn(MANY, generator=torch.Generator().manual_seed(2)).to(dtype)
    values[:4000:4] = float("nan")
    values[1:4000:4] = float("-inf")
    cleared = [values.clone(), values.clone()]
    masks.clear(cleared, keep)
    for one in cleared:
        assert torch.equal(one[~keep], torch.zeros_like(one[~keep]))
        assert not torch.signbit(one[~keep]).any()
        assert torch.equal(one[keep].nan_to_num(7.0), values[keep].nan_to_num(7.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_go_to_the_hidden_ones_and_come_back_bit_by_bit(dtype: torch.dtype) -> None:
    before, after = random_mask(1), random_mask(2)
    dense = torch.randn(MANY, generator=torch.Generator().manual_seed(3)).to(dtype)
    weights, hidden, moment = dense * before, dense * ~before, torch.ones(MANY, dtype=dtype)
    masks.clear([weights, moment], after, hidden)
    assert torch.equal(weights, torch.where(after, dense, 0.0))
    assert torch.equal(hidden, torch.where(after, 0.0, dense))
    assert torch.equal(moment, after.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_left_outside_a_mask_is_counted_but_not_a_negative_zero(dtype: torch.dtype) -> None:
    keep = random_mask(1)
    values = (torch.randn(MANY, generator=torch.Generator().manual_seed(2)) * keep).to(dtype)
    gone = (~keep).nonzero().view(-1)
    values[gone] = -0.0
    assert masks.count_outside(values, keep) == 0
    values[gone[0]], values[gone[-1]], values[gone[70]] = -(2.0**-24), float("nan"), 1.0  # fp16's least
    assert masks.count_outside(values, keep) == 3


def test_bits_beyond_the_last_weight_are_refused(tmp_path: Path) -> None:
    bits = {"a": torch.tensor([0b1110_0000], dtype=torch.uint8)}
    shapes = {"a": (5,)}
    facts = {"format": "prunus-mask", "version": "1", "shapes": json.dumps(shapes), "digest": "any"}
    save_file(bits, tmp_path / masks.FILE_NAME, facts)
    with pytest.raises(PruningError, match="a has bits beyond its 5 weights"):
        masks.load(tmp_path)


def test_the_mask_of_an_artifact_is_the_one_with_the_most_steps(tmp_path: Path) -> None:
    assert masks.newest(tmp_path) is None
    for step in (9, 10, 2):
        masks.save(example(), tmp_path / "masks" / f"step-{step}", masks.Facts("locked", step))
    (tmp_path / "masks" / "step-99").mkdir()  # left by a crash, without a mask
    assert masks.newest(tmp_path) == tmp_path / "masks" / "step-10"


def test_a_packed_mask_is_what_lies_in_the_file(tmp_path: Path) -> None:
    masks.save(example(), tmp_path, masks.Facts("locked", 3))
    packed = masks.load_packed(tmp_path)
    assert (packed.shapes, packed.facts["method"]) == ({"b": (3, 7), "a": (5,)}, "locked")
    assert all(torch.equal(bits, masks.PackedMask.of(example()).bits[name]) for name, bits in packed.bits.items())
