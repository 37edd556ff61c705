"""The compact form: the layout against brute force and compressed-tensors, the way back to the byte, and damage."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.compact import FILE_NAME, count_plain_zeros, open_compact, plain_tensors, read_tensor, to_compact, to_plain
from service.errors import Damaged, Refused
from service.weights import bits_of, count_zeros, open_weights

DTYPES = {"F32": np.uint32, "F16": np.uint16, "BF16": np.uint16, "F64": np.uint64, "F8_E4M3": np.uint8}


def write_plain(path: Path, tensors: dict[str, tuple[str, NDArray[Any]]]) -> Path:
    """A safetensors file written by hand from (dtype, bits)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, bits) in tensors.items():
        header[name] = {"dtype": dtype, "shape": bits.shape, "data_offsets": [offset, offset + bits.nbytes]}
        offset += bits.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(bits.tobytes() for _, bits in tensors.values()))
    return path


def sparse_bits(dtype: str, shape: tuple[int, ...], share: float, seed: int = 0) -> tuple[str, NDArray[Any]]:
    """Random elements, about a share of which are exactly zero."""
    draw = np.random.default_rng(seed)
    kind = DTYPES[dtype]
    bits = draw.integers(0, np.iinfo(kind).max, shape, dtype=kind, endpoint=True)
    return dtype, np.where(draw.random(shape) < share, 0, bits).astype(kind)


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
    assert list(plain_tensors(compact)) == list(tensors)
    for name, (dtype, bits) in tensors.items():
        assert (plain_tensors(compact)[name].dtype, plain_tensors(compact)[name].shape) == (dtype, bits.shape)
        assert count_plain_zeros(compact, name) == count_zeros(open_weights(plain), name)
        assert np.array_equal(read_tensor(compact, name), bits)
    for info in compact.tensors.values():
        assert info.offset % (info.num_bytes // max(info.num_elements, 1) or 1) == 0, "safetensors wants them aligned"


def test_the_layout_element_by_element(tmp_path: Path) -> None:
    bits_RC = np.zeros((3, 10), np.uint32)
    stored = {(0, 9): 7, (2, 0): 5, (2, 3): 0x8000_0000, (2, 8): 9}  # the third is -0.0
    for place, value in stored.items():
        bits_RC[place] = value
    plain = write_plain(tmp_path / "p", {"m.weight": ("F32", bits_RC)})
    to_compact(plain, tmp_path / "c")
    compact = open_weights(tmp_path / "c")
    assert set(compact.tensors) == {"m.compressed", "m.bitmask", "m.row_offsets", "m.shape"}
    assert bits_of(compact, "m.compressed").tolist() == [7, 5, 0x8000_0000, 9]
    assert bits_of(compact, "m.bitmask").reshape(3, 2).tolist() == [[0, 2], [0, 0], [1 + 8, 1]]
    assert bits_of(compact, "m.row_offsets").tolist() == [0, 1, 1]
    assert bits_of(compact, "m.shape").tolist() == [3, 10]
    assert compact.tensors["m.compressed"].dtype == "F32"


def test_a_tensor_that_would_not_shrink_stays_dense(tmp_path: Path) -> None:
    # 64 x 64 of two bytes: a bitmask, offsets and a shape cost 512 + 512 + 16 bytes, the space of 520 values.
    bits = np.ones(64 * 64, np.uint16)
    for zeros, names in ((520, {"m.weight"}), (521, {"m.compressed", "m.bitmask", "m.row_offsets", "m.shape"})):
        bits[:zeros] = 0
        plain = write_plain(tmp_path / "p", {"m.weight": ("BF16", bits.reshape(64, 64))})
        to_compact(plain, tmp_path / "c")
        assert set(open_weights(tmp_path / "c").tensors) == names


def test_ninety_percent_take_the_bits_that_arithmetic_says(tmp_path: Path) -> None:
    shape = (768, 768)
    plain = write_plain(tmp_path / "p", {"m.weight": sparse_bits("F32", shape, 0.9)})
    to_compact(plain, tmp_path / "c")
    per_weight = 8 * (tmp_path / "c").stat().st_size / (768 * 768)
    assert per_weight == pytest.approx(1 + 32 * 0.1 + 64 / 768, abs=0.05)


def test_vectors_and_convolutions_stay_as_they_are(tmp_path: Path) -> None:
    tensors = {"n.weight": sparse_bits("F32", (100,), 0.9), "conv.weight": sparse_bits("F32", (9, 9, 9), 0.9)}
    to_compact(write_plain(tmp_path / "p", tensors), tmp_path / "c")
    assert set(open_weights(tmp_path / "c").tensors) == set(tensors)


def test_a_name_that_is_taken_is_not_overwritten(tmp_path: Path) -> None:
    tensors = {"m.weight": sparse_bits("F32", (40, 40), 0.9), "m.shape": sparse_bits("F32", (3,), 0.0)}
    plain = write_plain(tmp_path / "p", tensors)
    to_compact(plain, tmp_path / "c")
    to_plain(tmp_path / "c", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == plain.read_bytes()


def test_compact_twice_is_refused(tmp_path: Path) -> None:
    to_compact(write_plain(tmp_path / "p", {"m.weight": sparse_bits("F32", (40, 40), 0.9)}), tmp_path / "c")
    with pytest.raises(Refused, match="compact already"):
        to_compact(tmp_path / "c", tmp_path / "cc")


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


def test_a_cut_file_is_seen_when_it_is_opened(tmp_path: Path) -> None:
    to_compact(write_plain(tmp_path / "p", {"m.weight": sparse_bits("F32", (40, 40), 0.9)}), tmp_path / "c")
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:-1])
    with pytest.raises(Damaged):
        open_compact(tmp_path / "c")


ORACLE = """
import sys
import torch
from safetensors.torch import load_file, save_file
from compressed_tensors.compressors.sparse_compressors.sparse_bitmask import BitmaskTensor
ours, plain, theirs = (sys.argv[1], sys.argv[2], sys.argv[3])
dense = load_file(plain)
parts = load_file(ours)
written = {}
for name, weight in dense.items():
    module = name.removesuffix(".weight")
    made = BitmaskTensor.from_dense(weight).dict(module)
    for part, tensor in made.items():
        assert tensor.dtype == parts[part].dtype and torch.equal(tensor, parts[part]), part
    keys = ("shape", "compressed", "bitmask", "row_offsets")
    read = BitmaskTensor(**{key: parts[f"{module}.{key}"] for key in keys}).decompress()
    assert torch.equal(read, weight), name
    written |= made
save_file(written, theirs)
print("same", len(dense))
"""


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which compressed-tensors 0.14.0.1 can be imported; nothing else sees it."""
    target = tmp_path_factory.mktemp("oracle")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    subprocess.run([*pip, "compressed-tensors==0.14.0.1", "loguru==0.7.3"], check=True, timeout=300)
    return {**os.environ, "PYTHONPATH": str(target)}


def test_compressed_tensors_writes_and_reads_the_same(tmp_path: Path, oracle: dict[str, str]) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    dense = {}
    for number, dtype in enumerate((torch.float32, torch.bfloat16, torch.float16)):
        weight = torch.randn(33, 71).to(dtype)
        weight[torch.rand(33, 71) < 0.9] = 0
        dense[f"layer.{number}.weight"] = weight
    save_file(dense, tmp_path / "plain", {"format": "pt"})
    to_compact(tmp_path / "plain", tmp_path / FILE_NAME)
    command = [sys.executable, "-c", ORACLE, str(tmp_path / FILE_NAME), str(tmp_path / "plain"), str(tmp_path / "ct")]
    ended = subprocess.run(command, env=oracle, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "same 3"
    # What they wrote, in our file: the same values by our reader.
    theirs = load_file(tmp_path / "ct")
    for name, weight in dense.items():
        ours = read_tensor(open_compact(tmp_path / FILE_NAME), name)
        as_int = torch.int16 if weight.element_size() == 2 else torch.int32
        assert np.array_equal(ours, weight.view(as_int).numpy().view(ours.dtype))
        assert theirs[f"{name.removesuffix('.weight')}.compressed"].numel() == int((weight != 0).sum())
