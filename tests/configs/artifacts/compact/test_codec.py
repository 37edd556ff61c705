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

from prunus.configs.artifacts.compact.codec import (
    FILE_NAME,
    count_plain_zeros,
    load_sparse,
    open_compact,
    read_tensor,
    to_compact,
    to_plain,
)
from prunus.configs.artifacts.inspection import inspect
from prunus.configs.artifacts.weight_file import bits_of, count_zeros, open_weights
from prunus.configs.errors import ArtifactMissing, ArtifactRefused, Damaged

DTYPES = {"F32": np.uint32, "F16": np.uint16, "BF16": np.uint16, "F64": np.uint64, "F8_E4M3": np.uint8}
LOADED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8", "F8_E4M3": "u1"}


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


def test_negative_zeros_and_the_bits_of_nans_are_loaded_and_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    words = np.zeros((64, 64), np.uint32)
    words[3, :4] = [0x8000_0000, 0x7FC0_1234, 0xFF80_0000, 0x3F80_0000]  # -0.0, a NaN, -inf, 1.0
    tensors = {"a.weight": ("F32", words), "b.weight": ("BF16", (words >> 16).astype(np.uint16))}
    to_compact(write_plain(tmp_path / "p", tensors), tmp_path / FILE_NAME)
    loaded = load_sparse(tmp_path)
    assert np.array_equal(loaded["a.weight"].view(np.uint32), words)
    assert loaded["a.weight"][3, 3] == 1.0 and np.signbit(loaded["a.weight"][3, 0])
    widened = (loaded["b.weight"].astype("u4") << 16).view("f4")
    assert widened[3, 2:4].tolist() == [-np.inf, 1.0]
    assert np.array_equal(widened.view(np.uint32), words & 0xFFFF_0000)


def test_loaded_shards_are_one_checkpoint_and_none_may_be_missing_or_lie_twice(tmp_path: Path) -> None:
    for number in (1, 2):
        plain = write_plain(tmp_path / "p", {f"m{number}.weight": sparse_bits("F32", (40, 40), 0.9, number)})
        to_compact(plain, tmp_path / f"model.sparse-0000{number}-of-00002.safetensors")
    assert load_sparse(tmp_path).keys() == {"m1.weight", "m2.weight"}
    second = tmp_path / "model.sparse-00002-of-00002.safetensors"
    content = second.read_bytes()
    second.unlink()
    with pytest.raises(Damaged, match=r"lacks the shard model\.sparse-00002-of-00002\.safetensors"):
        load_sparse(tmp_path)
    second.write_bytes((tmp_path / "model.sparse-00001-of-00002.safetensors").read_bytes())
    with pytest.raises(Damaged, match=r"m1\.weight in two files"):
        load_sparse(tmp_path)
    second.write_bytes(content)
    assert load_sparse(second).keys() == {"m2.weight"}
    for empty in (tmp_path / "nowhere", tmp_path / "e"):
        (tmp_path / "e").mkdir(exist_ok=True)
        with pytest.raises(ArtifactMissing, match="prunus convert"):
            load_sparse(empty)


def test_compact_twice_is_refused(tmp_path: Path) -> None:
    to_compact(write_plain(tmp_path / "p", {"m.weight": sparse_bits("F32", (40, 40), 0.9)}), tmp_path / "c")
    with pytest.raises(ArtifactRefused, match="compact already"):
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
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("extra", ["at the end", "between"])
def test_bytes_that_belong_to_no_tensor_are_refused_before_they_are_lost(tmp_path: Path, extra: str) -> None:
    plain = write_plain(tmp_path / "p", {"m.weight": sparse_bits("F32", (40, 40), 0.9)})
    if extra == "at the end":
        plain.write_bytes(plain.read_bytes() + b"x")
    else:
        entries = {
            name: {"dtype": "U8", "shape": [1], "data_offsets": [at, at + 1]} for name, at in (("a", 0), ("b", 2))
        }
        header = json.dumps(entries).encode()
        plain.write_bytes(struct.pack("<Q", len(header)) + header + b"123")
    with pytest.raises(ArtifactRefused, match="no tidy safetensors file"):
        to_compact(plain, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def compact_by_hand(path: Path, facts: dict[str, str]) -> Path:
    """A compact file as somebody might make one up: a matrix (1, 8) without values, and these facts."""
    tensors = {
        "m.compressed": ("F32", np.zeros(0, np.uint32)),
        "m.bitmask": ("U8", np.zeros((1, 1), np.uint8)),
        "m.row_offsets": ("I64", np.zeros(1, np.int64)),
        "m.shape": ("I64", np.asarray([1, 8], np.int64)),
    }
    content = write_plain(path, tensors).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    text = json.dumps({**json.loads(content[8 : 8 + length]), "__metadata__": facts}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return path


def plain_header(name: str = "m.weight", **changed: Any) -> str:
    return json.dumps({name: {"dtype": "F32", "shape": [1, 8], "data_offsets": [0, 32], **changed}})


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("{", "damaged"),
        ("[1]", "damaged"),
        ("1", "damaged"),
        ("[" * 100_000, "damaged"),
        ("\ud800", "damaged"),
        (plain_header(data_offsets=[]), "damaged"),
        (plain_header(shape=[2**29, 0], data_offsets=[0, 0]), "is empty"),
        (plain_header(shape=[0, 2**62], data_offsets=[0, 0]), "does not fit"),
        (plain_header(shape=[8, 1]), "row_offsets is I64"),
        (plain_header(dtype="I32"), "compressed is F32"),
        (plain_header("n.weight"), "n.compressed"),
        (plain_header(data_offsets=[4, 36]), "was expected"),
        ("{}", "belongs to no tensor"),
    ],
)
def test_made_up_headers_are_damage_without_a_traceback(tmp_path: Path, header: str, words: str) -> None:
    facts = {"format": "prunus-sparse-bitmask", "version": "1", "plain_header": header}
    path = compact_by_hand(tmp_path / FILE_NAME, facts)
    for call in (open_compact, inspect, lambda path: to_plain(path, tmp_path / "back")):
        with pytest.raises(Damaged, match=words):
            call(path)
    assert not (tmp_path / "back").exists()


def test_what_compact_by_hand_makes_is_read_once_its_header_is_right(tmp_path: Path) -> None:
    facts = {"format": "prunus-sparse-bitmask", "version": "1", "plain_header": plain_header()}
    opened = open_compact(compact_by_hand(tmp_path / FILE_NAME, facts))
    assert read_tensor(opened, "m.weight").tolist() == [[0] * 8]
    assert count_plain_zeros(opened, "m.weight") == 8


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_header_without_facts_or_of_a_newer_version(tmp_path: Path, version: str) -> None:
    path = compact_by_hand(tmp_path / FILE_NAME, {"format": "prunus-sparse-bitmask", "version": version})
    with pytest.raises(Damaged):
        inspect(path)


def test_parts_that_overlap_are_refused(tmp_path: Path) -> None:
    to_compact(write_plain(tmp_path / "p", {"m.weight": sparse_bits("F32", (40, 40), 0.9)}), tmp_path / "c")
    content = (tmp_path / "c").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["twice"] = header["m.shape"]
    text = json.dumps(header).encode()
    (tmp_path / "c").write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(Damaged, match="was expected"):
        open_compact(tmp_path / "c")


def test_zeros_are_counted_by_the_bits(tmp_path: Path) -> None:
    to_compact(write_plain(tmp_path / "p", {"m.weight": sparse_bits("F32", (40, 40), 0.9)}), tmp_path / "c")
    info = open_weights(tmp_path / "c").tensors["m.bitmask"]
    content = bytearray((tmp_path / "c").read_bytes())
    content[info.offset] ^= 1
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(Damaged, match="do not fit its bits"):
        count_plain_zeros(open_compact(tmp_path / "c"), "m.weight")


def test_a_cut_file_is_seen_when_it_is_opened(tmp_path: Path) -> None:
    to_compact(write_plain(tmp_path / "p", {"m.weight": sparse_bits("F32", (40, 40), 0.9)}), tmp_path / "c")
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:-1])
    with pytest.raises(Damaged):
        open_compact(tmp_path / "c")


ORACLE = """
import sys
import torch
from safetensors.torch import load_file
from compressed_tensors.compressors.sparse_compressors.sparse_bitmask import BitmaskTensor
ours, plain = sys.argv[1:]
dense = load_file(plain)
parts = load_file(ours)
for name, weight in dense.items():
    module = name.removesuffix(".weight")
    made = BitmaskTensor.from_dense(weight).dict(module)
    for part, tensor in made.items():
        assert tensor.dtype == parts[part].dtype and torch.equal(tensor, parts[part]), part
    keys = ("shape", "compressed", "bitmask", "row_offsets")
    read = BitmaskTensor(**{key: parts[f"{module}.{key}"] for key in keys}).decompress()
    assert torch.equal(read, weight), name
print("same", len(dense))
"""


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which compressed-tensors 0.14.0.1 can be imported; nothing else sees it."""
    target = tmp_path_factory.mktemp("oracle")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    installed = subprocess.run([*pip, "compressed-tensors==0.14.0.1", "loguru==0.7.3"], check=False, timeout=300)
    if installed.returncode:
        pytest.skip("compressed-tensors 0.14.0.1 cannot be installed: no package index")
    return {**os.environ, "PYTHONPATH": str(target)}


def test_compressed_tensors_writes_and_reads_the_same(tmp_path: Path, oracle: dict[str, str]) -> None:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    dense = {}
    for number, dtype in enumerate((torch.float32, torch.bfloat16, torch.float16)):
        weight = torch.randn(33, 71).to(dtype)
        weight[torch.rand(33, 71) < 0.9] = 0
        dense[f"layer.{number}.weight"] = weight
    save_file(dense, tmp_path / "plain", {"format": "pt"})
    to_compact(tmp_path / "plain", tmp_path / FILE_NAME)
    command = [sys.executable, "-c", ORACLE, str(tmp_path / FILE_NAME), str(tmp_path / "plain")]
    ended = subprocess.run(command, env=oracle, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "same 3"
    for name, weight in dense.items():
        ours = read_tensor(open_compact(tmp_path / FILE_NAME), name)
        as_int = torch.int16 if weight.element_size() == 2 else torch.int32
        assert np.array_equal(ours, weight.view(as_int).numpy().view(ours.dtype))
