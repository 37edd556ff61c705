"""Read compact checkpoints with NumPy: dense tensors out of bits and values, one at a time, equal to the bit.

    arrays = load_sparse(Path("out"))   # name -> NumPy array: all that a reader needs

``compact.layout`` draws the layout.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.configs.artifacts.compact.layout import (
    FILE_NAME,
    FORMAT,
    HEADER,
    VERSION,
    is_compact_name,
    missing_shard,
)
from prunus.configs.artifacts.weight_file import (
    BAD_HEADER,
    NUMPY_DTYPES,
    TensorInfo,
    WeightFile,
    bits_of,
    count_set_bits,
    count_zeros,
    open_weights,
    read_entries,
    refuse_gaps,
)
from prunus.configs.errors import ArtifactMissing, Damaged

Bits = NDArray[Any]
"""Elements as unsigned integers of their size."""


@dataclass(frozen=True)
class CompactFile:
    """A compact file whose header was checked: every tensor is there, with parts of the right dtypes and shapes.

    Attributes:
        file: The file itself.
        plain: Tensors of the plain file in its own order.
    """

    file: WeightFile
    plain: dict[str, TensorInfo]


def load_sparse(path: Path) -> dict[str, NDArray[Any]]:
    """Read a compact checkpoint: name -> array, dense, equal to the bit to the plain tensors.

    NumPy has neither bfloat16 nor float8: such a tensor comes as its bits, uint16 or uint8. A BF16 array ``b`` is
    widened, exactly, by ``(b.astype("u4") << 16).view("f4")``; ``load_bits`` tells it from integers.

    Args:
        path: A compact file, or a directory that holds one, or all of its shards.

    Raises:
        ArtifactMissing: There is no compact file.
        Damaged: A file is no whole one of this format, a shard is missing, or two shards have the same tensor.
    """
    return {name: bits.view(NUMPY_DTYPES.get(dtype, bits.dtype)) for name, (dtype, bits) in load_bits(path).items()}


def load_bits(path: Path) -> dict[str, tuple[str, Bits]]:
    """``load_sparse`` for libraries with more dtypes than NumPy: name -> safetensors' name of the dtype, and the bits.

    Raises:
        ArtifactMissing, Damaged: As in ``load_sparse``.
    """
    files = compact_files(path) if path.is_dir() else [path]
    if not files or not path.exists():
        raise ArtifactMissing(
            f"{path} is or holds no {FILE_NAME}; bring one with `prunus fetch --compact`, or write one with `prunus "
            "convert DIR DEST --to compact`"
        )
    if path.is_dir() and (missing := missing_shard([file.name for file in files])):
        raise Damaged(f"{path} lacks the shard {missing}; fetch it again")
    found: dict[str, tuple[str, Bits]] = {}
    for opened in map(open_compact, files):
        if twice := found.keys() & opened.plain.keys():
            raise Damaged(f"{path} has {min(twice)} in two files; fetch it again")
        for name, info in opened.plain.items():
            bits = read_tensor(opened, name)
            if isinstance(bits, np.memmap):
                bits = np.array(bits)  # not a view of a file that may go
            found[name] = info.dtype, bits
    return found


def compact_files(directory: Path) -> list[Path]:
    """The compact files of a directory: one, or shards."""
    return sorted(path for path in directory.glob("model.sparse*") if is_compact_name(path.name) and path.is_file())


def is_compact(file: WeightFile) -> bool:
    """Whether a safetensors file says of itself that it is of this format, of whatever version."""
    return file.metadata.get("format") == FORMAT


def open_compact(path: Path) -> CompactFile:
    """Open a compact file and check its header; sizes are bounded by the file's own.

    Raises:
        Damaged: Not one, of a version that is not known here, or with parts that do not fit together.
    """
    file = open_weights(path)
    said = (file.metadata.get("format"), file.metadata.get("version"))
    if said != (FORMAT, VERSION):
        raise Damaged(
            f"{path} is no compact checkpoint of version {VERSION} (format {said[0]!r}, version {said[1]!r}); a plain "
            "file needs no turning back, a newer version a newer prunus"
        )
    try:
        refuse_gaps(file.tensors, 8 + len(file.header.encode()), path.stat().st_size)
        text = file.metadata[HEADER]
        begin = 8 + len(text.encode())
        entries = json.loads(text)
        size = max((entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"), default=0)
        plain = read_entries(entries, begin, begin + size)
        refuse_gaps(plain, begin, begin + size)
        left = set(file.tensors)
        for info in plain.values():
            left -= _refuse_misfit(file, info)
        if left:
            raise ValueError(f"{min(left)} belongs to no tensor of the plain file")
    except BAD_HEADER as error:
        raise Damaged(f"{path} is damaged: {error!r}; fetch it again") from error
    return CompactFile(file, plain)


def count_plain_zeros(opened: CompactFile, name: str) -> int:
    """Zeros of either sign in a tensor of the plain file, without making it.

    Raises:
        Damaged: It has another number of values than of bits.
    """
    file = opened.file
    if name in file.tensors:
        return count_zeros(file, name)
    module = name.removesuffix(".weight")
    stored = file.tensors[f"{module}.compressed"].num_elements
    if count_set_bits(file, f"{module}.bitmask") != stored:
        raise Damaged(f"{file.path}: the values of {name} do not fit its bits; fetch it again")
    return opened.plain[name].num_elements - stored + count_zeros(file, f"{module}.compressed")


def read_tensor(opened: CompactFile, name: str) -> Bits:
    """One tensor of the plain file, dense, as unsigned integers of its element's size.

    Raises:
        Damaged: Its parts do not fit together.
    """
    file, info = opened.file, opened.plain[name]
    if name in file.tensors:
        return bits_of(file, name).reshape(info.shape)
    rows, columns = info.shape
    shape, kept, values, begins_R = (
        bits_of(file, f"{name.removesuffix('.weight')}.{part}")
        for part in ("shape", "bitmask", "compressed", "row_offsets")
    )
    kept_RC = np.unpackbits(kept.reshape(rows, -1), axis=1, count=columns, bitorder="little").view(bool)
    counts_R = np.count_nonzero(kept_RC, axis=1)
    if (
        shape.tolist() != [rows, columns]
        or int(counts_R.sum()) != values.size
        or not np.array_equal(begins_R, row_begins(counts_R))
    ):
        raise Damaged(f"{file.path}: the values of {name} do not fit its bits; fetch it again")
    dense_RC = np.zeros((rows, columns), values.dtype)
    dense_RC[kept_RC] = values
    return dense_RC


def row_begins(counts_R: Bits) -> Bits:
    """Where each row begins, given how many values each has."""
    return np.cumsum(counts_R, dtype="<i8") - counts_R


def _refuse_misfit(file: WeightFile, info: TensorInfo) -> set[str]:
    """Names of the tensors that hold a tensor of the plain file.

    Raises:
        ValueError: One is missing, or of another dtype or shape.
    """
    module = info.name.removesuffix(".weight")
    if info.name in file.tensors:
        wanted: dict[str, tuple[str, tuple[int, ...]]] = {info.name: (info.dtype, info.shape)}
    else:
        rows, columns = info.shape
        if not rows or not columns:
            raise ValueError(f"{info.name} is empty, and missing")
        stored = file.tensors[f"{module}.compressed"].num_elements
        wanted = {
            f"{module}.row_offsets": ("I64", (rows,)),
            f"{module}.shape": ("I64", (2,)),
            f"{module}.compressed": (info.dtype, (stored,)),
            f"{module}.bitmask": ("U8", (rows, -(-columns // 8))),
        }
    for name, expected in wanted.items():
        if (found := file.tensors[name]) and (found.dtype, found.shape) != expected:
            raise ValueError(f"{name} is {found.dtype}{list(found.shape)}, not {expected[0]}{list(expected[1])}")
    return set(wanted)
