"""Read safetensors with NumPy alone: every dtype that checkpoints use (bfloat16 and float8 too), in constant memory.

The format (https://github.com/huggingface/safetensors, section Format): 8 bytes little-endian length N, N bytes of
JSON {name: {dtype, shape, data_offsets}, "__metadata__": {str: str}}, then the tensors' bytes. We read it ourselves,
because safetensors 0.8 without torch raises on bfloat16 and float8, and gives neither offsets nor the header's text.
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.configs.errors import Damaged

_MAX_HEADER_BYTES = 100_000_000
BAD_HEADER = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)
"""What reading a header that somebody made up may raise."""
_LONGEST = 1 << 40
"""Elements along one axis; a longer one is a made-up header, even if another axis is 0."""
_BLOCK = 1 << 22
"""Elements that are in memory at one time."""
_LAYOUT: dict[str, tuple[str, int | None]] = {
    "F64": ("<u8", 0x7FFF_FFFF_FFFF_FFFF),
    "F32": ("<u4", 0x7FFF_FFFF),
    "F16": ("<u2", 0x7FFF),
    "BF16": ("<u2", 0x7FFF),
    "F8_E4M3": ("u1", 0x7F),
    "F8_E5M2": ("u1", 0x7F),
    "I64": ("<u8", None),
    "U64": ("<u8", None),
    "I32": ("<u4", None),
    "U32": ("<u4", None),
    "I16": ("<u2", None),
    "U16": ("<u2", None),
    "I8": ("u1", None),
    "U8": ("u1", None),
    "BOOL": ("u1", None),
}
"""dtype -> how its bits are viewed, and the bits that are not its sign (None: there is no negative zero)."""
NUMPY_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "BOOL": "?",
}  # fmt: skip
"""dtype -> NumPy's own; unsigned integers are as their bits, and what NumPy does not know (BF16, F8) is left out."""


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    """Bytes from the file's beginning."""

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_elements * np.dtype(_LAYOUT[self.dtype][0]).itemsize


@dataclass(frozen=True)
class WeightFile:
    """The header of one safetensors file."""

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    header: str
    """The JSON text as it stands, spaces at its end included."""


def open_weights(path: Path) -> WeightFile:
    """Read and check the header of a safetensors file.

    Raises:
        Damaged: Not safetensors, cut short, or with tensors that lie outside the file or do not fit their shape.
    """
    try:
        file_size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(_MAX_HEADER_BYTES, file_size - 8):
                # Of another kind of file the length is any number: not told.
                raise ValueError("it does not begin with a header of that format, or is cut short inside it")
            text = file.read(length).decode()
        header = json.loads(text)
        metadata = {str(key): str(value) for key, value in header.get("__metadata__", {}).items()}
        tensors = read_entries(header, 8 + length, file_size)
    except (*BAD_HEADER, OSError, struct.error) as error:
        raise Damaged(f"{path} is not a whole safetensors file: {error}; fetch it again") from error
    return WeightFile(path, tensors, metadata, text)


def read_entries(header: dict[str, Any], data_begin: int, file_size: int) -> dict[str, TensorInfo]:
    """Check the tensors of a header, and say where they lie in a file of ``file_size`` bytes.

    Raises:
        One of ``BAD_HEADER``.
    """
    return {
        name: _tensor(name, entry, data_begin, file_size) for name, entry in header.items() if name != "__metadata__"
    }


def refuse_gaps(tensors: dict[str, TensorInfo], data_begin: int, file_size: int) -> None:
    """Check that tensors lie one after the other and fill the file, as the format asks.

    Raises:
        ValueError: They overlap, or bytes belong to none.
    """
    end = data_begin
    for info in sorted(tensors.values(), key=lambda info: (info.offset, info.num_bytes)):
        if info.offset != end:
            raise ValueError(f"{info.name} begins at byte {info.offset:,}, where byte {end:,} was expected")
        end += info.num_bytes
    if end != file_size:
        raise ValueError(f"its tensors end at byte {end:,} of {file_size:,}")


def count_zeros(file: WeightFile, name: str) -> int:
    """Count the elements that are exactly zero, of either sign."""
    info = file.tensors[name]
    bits = _LAYOUT[info.dtype][1]
    zeros = 0
    for block in _blocks(file, info):
        values = block if bits is None else block & block.dtype.type(bits)
        zeros += int(values.size - np.count_nonzero(values))
    return zeros


def count_set_bits(file: WeightFile, name: str) -> int:
    """Count the ones in a tensor of bytes."""
    return sum(map(num_ones, _blocks(file, file.tensors[name])))


def num_ones(bytes_N: NDArray[np.uint8]) -> int:
    """Count the bits that are 1; eight bytes at a time."""
    whole = bytes_N.size // 8 * 8
    words, rest = bytes_N[:whole].view(np.uint64), bytes_N[whole:]
    return int(np.bitwise_count(words).sum(dtype=np.int64)) + int(np.bitwise_count(rest).sum(dtype=np.int64))


def bits_of(file: WeightFile, name: str) -> NDArray[Any]:
    """A tensor of the file, flat, as unsigned integers of its element's size; read when it is used.

    Raises:
        KeyError: The file has no such tensor.
    """
    info = file.tensors[name]
    dtype = np.dtype(_LAYOUT[info.dtype][0])
    if not info.num_elements:
        return np.zeros(0, dtype)
    return np.memmap(file.path, dtype, "r", info.offset, (info.num_elements,))


def _blocks(file: WeightFile, info: TensorInfo) -> Iterator[NDArray[Any]]:
    dtype = np.dtype(_LAYOUT[info.dtype][0])
    with file.path.open("rb") as data:
        data.seek(info.offset)
        remaining = info.num_elements
        while remaining:
            block = np.fromfile(data, dtype=dtype, count=min(_BLOCK, remaining))
            if not block.size:
                raise Damaged(f"{file.path} ends inside {info.name}; fetch it again")
            remaining -= block.size
            yield block


def _tensor(name: str, entry: dict[str, Any], data_begin: int, file_size: int) -> TensorInfo:
    shape = tuple(int(size) for size in entry["shape"])
    begin, end = (int(offset) for offset in entry["data_offsets"])
    dtype = str(entry["dtype"])
    if dtype not in _LAYOUT:
        raise ValueError(f"{name} has the dtype {dtype}, which is not known here")
    expected = math.prod(shape) * np.dtype(_LAYOUT[dtype][0]).itemsize
    sane = all(0 <= size <= _LONGEST for size in shape)
    if not sane or begin < 0 or end - begin != expected or data_begin + end > file_size:
        raise ValueError(f"{name} {dtype}{list(shape)} does not fit bytes {begin}-{end} of the file")
    return TensorInfo(name, dtype, shape, data_begin + begin)
