"""What is written: the layout against arithmetic, and what is refused."""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import zstandard

from prunus.configs.artifacts.compact.layout import FILE_NAME
from prunus.configs.artifacts.compact.pack import pack, to_compact
from prunus.configs.artifacts.weight_file import bits_of, open_weights
from prunus.configs.errors import ArtifactRefused
from tests.configs.artifacts.compact.plain_files import sparse_bits, write_plain


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


def test_compact_twice_is_refused(tmp_path: Path) -> None:
    to_compact(write_plain(tmp_path / "p", {"m.weight": sparse_bits("F32", (40, 40), 0.9)}), tmp_path / "c")
    with pytest.raises(ArtifactRefused, match="compact already"):
        to_compact(tmp_path / "c", tmp_path / "cc")


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


def test_a_dense_model_has_no_packed_form(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_plain(tmp_path / "model" / "model.safetensors", {"m.weight": sparse_bits("F32", (40, 40), 0.0)})
    assert pack(tmp_path / "model", tmp_path / "compact") == 0
    assert not (tmp_path / "compact").exists()


def test_a_packed_form_that_is_not_smaller_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw = np.random.default_rng(0)
    bits = draw.integers(1, 2**32, (8, 16), dtype=np.uint32)
    bits.reshape(-1)[:64] = 0  # shrinks by less than the metadata takes
    (tmp_path / "model").mkdir()
    write_plain(tmp_path / "model" / "model.safetensors", {"a.weight": ("F32", bits)})
    with caplog.at_level("INFO"):
        assert pack(tmp_path / "model", tmp_path / "compact") == 0
    assert "it would not be smaller" in caplog.text
    assert not (tmp_path / "compact").exists()


def test_the_bytes_are_those_of_earlier_releases(tmp_path: Path) -> None:
    """Digests from the code of release 0.1.0, which wrote it with torch."""
    places = np.arange(96 * 40)
    sparse = np.where(places % 7 == 0, (places * 37 % 101) + 1, 0)
    tensors = {
        "e.weight": ("F32", sparse.astype(np.uint32).reshape(96, 40)),
        "h.weight": ("BF16", sparse.astype(np.uint16).reshape(96, 40)),
        "f.weight": ("F8_E4M3", sparse.astype(np.uint8).reshape(40, 96)),
        "odd.weight": ("F32", sparse[: 95 * 13].astype(np.uint32).reshape(95, 13)),
        "d.weight": ("F32", (sparse + 1).astype(np.uint32).reshape(96, 40)),
        "i.weight": ("I64", (places % 11 == 0).astype(np.int64).reshape(96, 40)),
        "n.bias": ("F32", places[:5].astype(np.uint32)),
        "s": ("F16", np.array(0x4200, np.uint16)),
    }
    (tmp_path / "model").mkdir()
    plain = write_plain(tmp_path / "model" / "model.safetensors", tensors)
    assert (
        hashlib.sha256(plain.read_bytes()).hexdigest()
        == "f2c8f245dac9fa042617e454c473518fc1b20f8320565f66d2e8abd33d629c1d"
    )
    pack(tmp_path / "model", tmp_path / "compact")
    (packed,) = (tmp_path / "compact").iterdir()
    frame = zstandard.get_frame_parameters(packed.read_bytes())
    compact = zstandard.decompress(packed.read_bytes())
    assert (packed.name, frame.content_size, frame.has_checksum) == ("model.sparse.safetensors.zst", len(compact), True)
    assert hashlib.sha256(compact).hexdigest() == "1e52a7eb830837f47c523a7099030d299e4a1082f6a1918ef3280db7e9f0057b"
    to_compact(plain, tmp_path / FILE_NAME)
    assert (tmp_path / FILE_NAME).read_bytes() == compact
