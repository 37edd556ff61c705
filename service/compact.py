"""The compact form of a sparse checkpoint: a bit per position and the values that are not zero. NumPy alone, lossless.

File ``model.sparse.safetensors``. A matrix ``NAME.weight`` (R, C) that shrinks is stored as four tensors, in the layout
of compressed-tensors' sparse-bitmask (0.14); everything else stays as it is:

    NAME.compressed   (n,)              its dtype   the elements that are not zero, row by row
    NAME.bitmask      (R, ceil(C / 8))  uint8       lowest bit first; 1 where an element is stored
    NAME.row_offsets  (R,)              int64       where each row begins in NAME.compressed
    NAME.shape        (2,)              int64       R, C

An element is left out if all its bits are zero, so -0.0 and NaN are kept. Header and digest of the plain file are in
the metadata: turned back, it is the same to the byte, and checked. At most one tensor is in memory.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from configs.artifacts import sha256_file
from service.errors import Damaged, Refused
from service.weights import TensorInfo, WeightFile, bits_of, count_zeros, open_weights

FILE_NAME = "model.sparse.safetensors"
FORMAT = "prunus-sparse-bitmask"
VERSION = "1"
_HEADER = "plain_header"
_DIGEST = "plain_sha256"
_PARTS = ("row_offsets", "shape", "compressed", "bitmask")
Bits = NDArray[Any]
"""Elements as unsigned integers of their size."""


class _Part(NamedTuple):
    """One tensor of the file that is written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int


def to_compact(plain: Path, compact: Path) -> None:
    """Write the compact form of a safetensors file.

    Raises:
        Damaged: ``plain`` is not a whole safetensors file.
        Refused: It is compact already.
    """
    file = open_weights(plain)
    if file.metadata.get("format") == FORMAT:
        raise Refused(f"{plain} is compact already; turn it back with --to plain")
    parts: list[_Part] = []
    for info in file.tensors.values():
        parts += _sparse_parts(file, info) or [_Part(info.name, info.dtype, info.shape, info.num_bytes)]
    # Large elements first, so that every tensor begins at a multiple of its element's size.
    parts.sort(key=lambda part: (-_itemsize(part.dtype), part.name))
    metadata = {"format": FORMAT, "version": VERSION, _HEADER: file.header, _DIGEST: sha256_file(plain)}
    _write(compact, parts, metadata, _compact_data(file, parts))


def to_plain(compact: Path, plain: Path) -> None:
    """Write the plain form of a compact file: the bytes that it was made of.

    Raises:
        Damaged: ``compact`` is not a whole file of this format.
    """
    file = open_compact(compact)
    header = file.metadata[_HEADER].encode()
    try:
        entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        order = sorted(entries, key=lambda name: entries[name]["data_offsets"][0])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{compact}: the header of the plain file is damaged ({error!r}); fetch it again") from error
    with plain.open("wb") as out:
        out.write(struct.pack("<Q", len(header)) + header)
        for name in order:
            read_tensor(file, name).tofile(out)
    if sha256_file(plain) != file.metadata.get(_DIGEST):
        plain.unlink()
        raise Damaged(f"{compact} is damaged: turned back it is not the file that it was made of; fetch it again")


def open_compact(path: Path) -> WeightFile:
    """Open a compact file.

    Raises:
        Damaged: Not one, or of a version that is not known here.
    """
    file = open_weights(path)
    if (file.metadata.get("format"), file.metadata.get("version")) != (FORMAT, VERSION) or _HEADER not in file.metadata:
        raise Damaged(
            f"{path} is no compact checkpoint of version {VERSION} (format {file.metadata.get('format')!r}, version "
            f"{file.metadata.get('version')!r}); plain files need no turning back"
        )
    return file


def plain_tensors(file: WeightFile) -> dict[str, TensorInfo]:
    """Dtypes and shapes of the tensors that stand in the plain file, by name; of a plain file, its own.

    Raises:
        Damaged: The compact file lacks a part of one.
    """
    if file.metadata.get("format") != FORMAT:
        return file.tensors
    names = [name for name in json.loads(file.metadata[_HEADER]) if name != "__metadata__"]
    return {name: file.tensors.get(name) or _matrix(file, name) for name in names}


def _matrix(file: WeightFile, name: str) -> TensorInfo:
    module = name.removesuffix(".weight")
    try:
        rows, columns = (int(size) for size in bits_of(file, f"{module}.shape"))
        return TensorInfo(name, file.tensors[f"{module}.compressed"].dtype, (rows, columns), 0)
    except (KeyError, ValueError) as error:
        raise Damaged(f"{file.path}: {name} is not whole ({error}); fetch it again") from error


def count_plain_zeros(file: WeightFile, name: str) -> int:
    """Zeros of either sign in a tensor of the plain file, without making it."""
    if name in file.tensors:
        return count_zeros(file, name)
    stored = f"{name.removesuffix('.weight')}.compressed"
    return _matrix(file, name).num_elements - file.tensors[stored].num_elements + count_zeros(file, stored)


def read_tensor(file: WeightFile, name: str) -> Bits:
    """One tensor of the plain file, dense, as unsigned integers of its element's size.

    Raises:
        Damaged: Its parts do not fit together.
    """
    if name in file.tensors:
        return bits_of(file, name).reshape(file.tensors[name].shape)
    module, (rows, columns) = name.removesuffix(".weight"), _matrix(file, name).shape
    try:
        kept = bits_of(file, f"{module}.bitmask").reshape(rows, -(-columns // 8))
        values = bits_of(file, f"{module}.compressed")
        begins = bits_of(file, f"{module}.row_offsets")
    except (KeyError, ValueError) as error:
        raise Damaged(f"{file.path}: {name} is not whole ({error}); fetch it again") from error
    kept_RC = np.unpackbits(kept, axis=1, count=columns, bitorder="little").view(bool)
    counts = np.count_nonzero(kept_RC, axis=1)
    if int(counts.sum()) != values.size or not np.array_equal(begins, _begins(counts)):
        raise Damaged(f"{file.path}: the values of {name} do not fit its bits; fetch it again")
    dense_RC = np.zeros((rows, columns), values.dtype)
    dense_RC[kept_RC] = values
    return dense_RC


def _sparse_parts(file: WeightFile, info: TensorInfo) -> list[_Part]:
    """The four tensors of a matrix; none if it would not shrink, or if they would take the name of another tensor."""
    module = info.name.removesuffix(".weight")
    if len(info.shape) != 2 or module == info.name or any(f"{module}.{part}" in file.tensors for part in _PARTS):
        return []
    rows, columns = info.shape
    size, width = _itemsize(info.dtype), -(-columns // 8)
    count = int(np.count_nonzero(bits_of(file, info.name)))
    if 16 + 8 * rows + size * count + rows * width >= info.num_bytes:
        return []
    return [
        _Part(f"{module}.row_offsets", "I64", (rows,), 8 * rows),
        _Part(f"{module}.shape", "I64", (2,), 16),
        _Part(f"{module}.compressed", info.dtype, (count,), size * count),
        _Part(f"{module}.bitmask", "U8", (rows, width), rows * width),
    ]


def _compact_data(file: WeightFile, parts: list[_Part]) -> Iterator[Bits]:
    """The data of each part, in order."""
    for part in parts:
        if part.name in file.tensors:
            yield bits_of(file, part.name)
            continue
        module, _, kind = part.name.rpartition(".")
        bits_RC = bits_of(file, f"{module}.weight").reshape(file.tensors[f"{module}.weight"].shape)
        if kind == "shape":
            yield np.asarray(bits_RC.shape, "<i8")
        elif kind == "compressed":
            yield bits_RC[bits_RC != 0]
        elif kind == "bitmask":
            yield np.packbits(bits_RC != 0, axis=1, bitorder="little")
        else:
            yield _begins(np.count_nonzero(bits_RC, axis=1))


def _begins(counts_R: Bits) -> Bits:
    """Where each row begins, given how many values each has."""
    return np.cumsum(counts_R, dtype="<i8") - counts_R


def _write(path: Path, parts: list[_Part], metadata: dict[str, str], data: Iterator[Bits]) -> None:
    header: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for part in parts:
        header[part.name] = {
            "dtype": part.dtype,
            "shape": part.shape,
            "data_offsets": [offset, offset + part.num_bytes],
        }
        offset += part.num_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for bits in data:
            bits.tofile(out)


def _itemsize(dtype: str) -> int:
    return TensorInfo("", dtype, (1,), 0).num_bytes
