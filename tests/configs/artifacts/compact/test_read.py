"""What is read, and damage."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunus.configs.artifacts.compact.layout import FILE_NAME
from prunus.configs.artifacts.compact.pack import to_compact
from prunus.configs.artifacts.compact.read import count_plain_zeros, load_sparse, open_compact, read_tensor
from prunus.configs.artifacts.compact.unpack import to_plain
from prunus.configs.artifacts.inspection import inspect
from prunus.configs.artifacts.weight_file import open_weights
from prunus.configs.errors import ArtifactMissing, Damaged
from tests.configs.artifacts.compact.plain_files import sparse_bits, write_plain


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
