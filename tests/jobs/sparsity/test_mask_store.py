"""Masks of tensors in the file and back, and digests."""

from pathlib import Path

import numpy as np
import pytest
import torch

from prunus.configs.artifacts.mask_file import Facts, load_packed
from prunus.jobs.errors import PruningError
from prunus.jobs.sparsity import mask_store
from prunus.jobs.sparsity.arithmetic import Masks


def example() -> Masks:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.rand(shape, generator=generator) > 0.5 for name, shape in {"b": (3, 7), "a": (5,)}.items()}


def test_tensors_come_back_equal_and_in_order(tmp_path: Path) -> None:
    wanted = example()
    path = mask_store.save(wanted, tmp_path / "masks" / "step-3", Facts("locked", 3))
    for place in (path, path.parent):
        loaded = mask_store.load(place)
        assert list(loaded) == ["b", "a"]
        assert all(torch.equal(loaded[name], wanted[name]) for name in wanted)
    assert load_packed(path).digest() == mask_store.digest(wanted)


def test_what_lies_in_the_file_is_the_flattened_mask_with_the_lowest_bit_first(tmp_path: Path) -> None:
    mask = torch.tensor([[True, False], [True, True], [False, False]]).T  # not contiguous; rows: 1 1 0 / 0 1 0
    mask_store.save({"w": mask}, tmp_path, Facts("locked", 0))
    found = load_packed(tmp_path)
    assert (found.bits["w"].tolist(), found.shapes["w"]) == ([0b010011], (2, 3))
    assert torch.equal(mask_store.load(tmp_path)["w"], mask)


def test_a_loaded_mask_is_of_writable_memory_of_its_own(tmp_path: Path) -> None:
    mask_store.save(example(), tmp_path, Facts("locked", 0))
    loaded = mask_store.load(tmp_path)["b"]
    loaded.zero_()
    assert torch.equal(mask_store.load(tmp_path)["b"], example()["b"])


def test_packing_makes_views_of_the_bits_not_copies() -> None:
    """The bits of a CPU's mask are made once: 85M weights take 10.6 MB."""
    found = mask_store.packed({"w": torch.ones(16, dtype=torch.bool)}).bits["w"]
    assert isinstance(found, np.ndarray) and found.tolist() == [255, 255]


def test_a_file_that_cannot_be_used_is_an_error_of_the_job(tmp_path: Path) -> None:
    with pytest.raises(PruningError, match="does not exist; give a job or directory that has a mask"):
        mask_store.load(tmp_path)
    path = mask_store.save(example(), tmp_path, Facts("locked", 0))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PruningError, match=r"mask\.safetensors cannot be read as a mask"):
        mask_store.load(tmp_path)


def test_the_digest_of_weights_depends_on_values_names_and_shapes_but_not_on_order_or_layout() -> None:
    one = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor([1.0, -0.5])}
    same = mask_store.weights_digest(one)
    assert len(bytes.fromhex(same)) == 32
    assert mask_store.weights_digest(dict(reversed(one.items()))) == same
    transposed = one["b"].T.contiguous().T  # equal values, another layout
    assert not transposed.is_contiguous()
    assert mask_store.weights_digest({**one, "b": transposed}) == same
    assert mask_store.weights_digest({name: torch.nn.Parameter(weight) for name, weight in one.items()}) == same
    others = [
        {**one, "b": torch.arange(6.0).view(3, 2)},
        {"b": one["b"], "c": one["a"]},
        {"b": one["b"]},
        {**one, "a": torch.tensor([1.0, 0.5])},
        {**one, "a": torch.tensor([1.0 + 2**-23, -0.5])},
    ]
    assert len({same, *map(mask_store.weights_digest, others)}) == 6
