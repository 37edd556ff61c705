"""The way back to the plain file, to the byte."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from prunus.configs.artifacts.compact.layout import FILE_NAME
from prunus.configs.artifacts.compact.pack import to_compact
from prunus.configs.artifacts.compact.read import count_plain_zeros, load_sparse, open_compact, read_tensor
from prunus.configs.artifacts.compact.unpack import to_plain
from prunus.configs.artifacts.weight_file import count_zeros, open_weights
from prunus.configs.errors import Damaged
from tests.configs.artifacts.compact.plain_files import DTYPES, sparse_bits, write_plain

LOADED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8", "F8_E4M3": "u1"}


@st.composite
def files(draw: st.DrawFn) -> dict[str, tuple[str, NDArray[Any]]]:
    """Tensors of every kind of name, dtype, rank and sparsity."""
    names = st.sampled_from(["a.weight", "a.bias", "b.weight", "weight", "c", "d.weight", "d.shape", "ä.weight"])
    sizes = st.lists(st.integers(0, 33), min_size=0, max_size=3)
    found = {}
    for number, name in enumerate(draw(st.lists(names, unique=True, max_size=5))):
        shape = tuple(draw(sizes))
        found[name] = sparse_bits(draw(st.sampled_from(sorted(DTYPES))), shape, draw(st.floats(0, 1)), number)
    return found


@settings(max_examples=150, deadline=None)
@given(tensors=files())
def test_the_way_back_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, tuple[str, NDArray[Any]]]
) -> None:
    root = tmp_path_factory.mktemp("f")
    plain = write_plain(root / "model.safetensors", tensors)
    to_compact(plain, root / FILE_NAME)
    to_plain(root / FILE_NAME, root / "back")
    assert (root / "back").read_bytes() == plain.read_bytes()
    compact = open_compact(root / FILE_NAME)
    assert list(compact.plain) == list(tensors)
    for name, (dtype, bits) in tensors.items():
        assert (compact.plain[name].dtype, compact.plain[name].shape) == (dtype, bits.shape)
        assert count_plain_zeros(compact, name) == count_zeros(open_weights(plain), name)
        assert np.array_equal(read_tensor(compact, name), bits)
    arrays = load_sparse(root)
    assert {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()} == {
        name: (np.dtype(LOADED[dtype]), bits.shape, bits.tobytes()) for name, (dtype, bits) in tensors.items()
    }
    for info in compact.file.tensors.values():
        assert info.offset % (info.num_bytes // max(info.num_elements, 1) or 1) == 0, "safetensors wants them aligned"


def test_a_name_that_is_taken_is_not_overwritten(tmp_path: Path) -> None:
    tensors = {"m.weight": sparse_bits("F32", (40, 40), 0.9), "m.shape": sparse_bits("F32", (3,), 0.0)}
    plain = write_plain(tmp_path / "p", tensors)
    to_compact(plain, tmp_path / "c")
    to_plain(tmp_path / "c", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == plain.read_bytes()


def test_a_plain_file_is_no_compact_one(tmp_path: Path) -> None:
    plain = write_plain(tmp_path / "p", {"m.weight": sparse_bits("F32", (4, 4), 0.9)})
    with pytest.raises(Damaged, match="no compact checkpoint of version 1"):
        to_plain(plain, tmp_path / "back")


@pytest.mark.parametrize("part", ["bitmask", "shape", "compressed", "row_offsets"])
def test_damage_is_seen(tmp_path: Path, part: str) -> None:
    to_compact(write_plain(tmp_path / "p", {"m.weight": sparse_bits("F32", (40, 40), 0.9)}), tmp_path / "c")
    info = open_weights(tmp_path / "c").tensors[f"m.{part}"]
    content = bytearray((tmp_path / "c").read_bytes())
    content[info.offset] ^= 1
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(Damaged):
        to_plain(tmp_path / "c", tmp_path / "back")
    assert not (tmp_path / "back").exists()
