"""The compact form of a sparse checkpoint as a contract: names, layout, header. Pure.

``compact.pack`` writes it, ``compact.read`` and ``compact.unpack`` read it; ``runtime.load`` makes torch
tensors of what was read.

File ``model.sparse.safetensors``. A matrix ``NAME.weight`` (R, C) that shrinks is stored as four tensors, in the layout
of compressed-tensors' sparse-bitmask (0.14); everything else stays as it is:

    NAME.compressed   (n,)              its dtype   the elements that are not zero, row by row
    NAME.bitmask      (R, ceil(C / 8))  uint8       lowest bit first; 1 where an element is stored
    NAME.row_offsets  (R,)              int64       where each row begins in NAME.compressed
    NAME.shape        (2,)              int64       R, C

An element is left out if all its bits are zero, so -0.0 and NaN are kept. Header and digest of the plain file are in
the metadata: turned back, it is the same to the byte. In an artifact it lies beside ``model/`` as one zstd frame,
``compact/model.sparse.safetensors.zst``; shards have their numbers in both names.
"""

import json
import re
import struct
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

FILE_NAME = "model.sparse.safetensors"
FORMAT = "prunus-sparse-bitmask"
VERSION = "1"
HEADER = "plain_header"
"""Key of the metadata: the plain file's header, its JSON text as it stands."""
DIGEST = "plain_sha256"
"""Key of the metadata: SHA-256 of the plain file."""
PARTS = ("row_offsets", "shape", "compressed", "bitmask")
FOLDER = "compact"
"""Where an artifact has the packed files."""
PACKED = ".zst"
"""Ends the name of a compact file that is packed: one zstd frame with its size and a checksum."""
_PLAIN_NAME = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_COMPACT_NAME = re.compile(r"model\.sparse(?:-(\d+)-of-(\d+))?\.safetensors")
_ITEM_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}


class Part(NamedTuple):
    """One tensor of a compact file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int


def is_plain_name(name: str) -> bool:
    """Whether a file of this name holds plain weights: the only one, or a shard."""
    return _PLAIN_NAME.fullmatch(name) is not None


def is_compact_name(name: str) -> bool:
    """Whether a file of this name holds compact weights: the only one, or a shard."""
    return _COMPACT_NAME.fullmatch(name) is not None


def compact_name(plain: str) -> str:
    """``model.safetensors`` -> ``model.sparse.safetensors``; shards alike."""
    return plain.replace("model", "model.sparse", 1)


def plain_name(compact: str) -> str:
    """Inverse of ``compact_name``."""
    return compact.replace("model.sparse", "model", 1)


def packed_path(plain: str) -> str | None:
    """``model/model.safetensors`` -> ``compact/model.sparse.safetensors.zst``, as paths in an artifact; None for a file
    that has no compact form.
    """
    folder, _, name = plain.rpartition("/")
    return f"{FOLDER}/{compact_name(name)}{PACKED}" if folder == "model" and is_plain_name(name) else None


def missing_shard(names: Collection[str]) -> str | None:
    """The first compact file that the shards among ``names`` say there is, and that is not among them."""
    shard = next((found for name in names if (found := _COMPACT_NAME.fullmatch(name)) and found[1]), None)
    if shard is None:
        return None
    digits, count = len(shard[1]), shard[2]
    wanted = (f"model.sparse-{number:0{digits}}-of-{count}.safetensors" for number in range(1, int(count) + 1))
    return next((name for name in wanted if name not in names), None)


def may_shrink(name: str, shape: Collection[int], names: Collection[str]) -> bool:
    """Whether a tensor is a matrix whose four parts would take the name of no other tensor."""
    module = name.removesuffix(".weight")
    return len(shape) == 2 and module != name and not any(f"{module}.{part}" in names for part in PARTS)


def sparse_parts(name: str, dtype: str, shape: tuple[int, ...], num_nonzero: int) -> list[Part]:
    """The four tensors of a matrix ``NAME.weight`` (R, C); none if they would not be smaller than it is."""
    rows, columns = shape
    size, width, module = item_bytes(dtype), -(-columns // 8), name.removesuffix(".weight")
    if 16 + 8 * rows + size * num_nonzero + rows * width >= size * rows * columns:
        return []
    return [
        Part(f"{module}.row_offsets", "I64", (rows,), 8 * rows),
        Part(f"{module}.shape", "I64", (2,), 16),
        Part(f"{module}.compressed", dtype, (num_nonzero,), size * num_nonzero),
        Part(f"{module}.bitmask", "U8", (rows, width), rows * width),
    ]


def in_order(parts: Iterable[Part]) -> list[Part]:
    """Large elements first, so that every tensor begins at a multiple of its element's size."""
    return sorted(parts, key=lambda part: (-item_bytes(part.dtype), part.name))


def file_head(parts: Iterable[Part], plain_header: str, plain_sha256: str) -> bytes:
    """What a compact file begins with: length and JSON header; the parts' bytes follow in their order."""
    facts = {"format": FORMAT, "version": VERSION, HEADER: plain_header, DIGEST: plain_sha256}
    header: dict[str, Any] = {"__metadata__": facts}
    end = 0
    for part in parts:
        begin, end = end, end + part.num_bytes
        header[part.name] = {"dtype": part.dtype, "shape": part.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def item_bytes(dtype: str) -> int:
    """Bytes of one element, by safetensors' name of its dtype."""
    return _ITEM_BYTES.get(dtype, 1)
