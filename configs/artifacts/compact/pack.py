"""Write the compact form: of a file, or packed of a model's directory. One tensor is in memory at a time.

``compact.layout`` draws the layout.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard

from prunus.configs.artifacts.compact.layout import (
    PACKED,
    Part,
    compact_name,
    file_head,
    in_order,
    is_plain_name,
    may_shrink,
    sparse_parts,
)
from prunus.configs.artifacts.compact.read import Bits, is_compact, row_begins
from prunus.configs.artifacts.manifest import sha256_file
from prunus.configs.artifacts.weight_file import TensorInfo, WeightFile, bits_of, open_weights, refuse_gaps
from prunus.configs.errors import ArtifactRefused

log = logging.getLogger(__name__)

_LEVEL = 3
"""Of zstd: the higher ones gain a few percent and take many times as long."""


@dataclass(frozen=True)
class _Layout:
    """What the compact form of one file will hold.

    Attributes:
        plain: The file that it is made of.
        parts: Tensors of the compact file, in order.
    """

    plain: WeightFile
    parts: list[Part]

    @property
    def is_sparse(self) -> bool:
        return any(part.name not in self.plain.tensors for part in self.parts)

    def head(self) -> bytes:
        """What the compact file begins with; digests the plain file."""
        return file_head(self.parts, self.plain.header, sha256_file(self.plain.path))


def to_compact(plain: Path, compact: Path) -> None:
    """Write the compact form of a safetensors file.

    Raises:
        Damaged: ``plain`` is not a whole safetensors file.
        ArtifactRefused: It is compact already, or has bytes that belong to no tensor, which could not be given back.
    """
    layout = _layout(plain)
    with compact.open("wb") as out:
        out.write(layout.head())
        for bits in _data(layout):
            bits.tofile(out)


def pack(model: Path, folder: Path) -> int:
    """Write the compact form of every file of weights in ``model``, packed.

    Returns:
        Its bytes; 0, and no ``folder``, if no matrix is sparse enough to shrink, or the whole is not smaller.

    Raises:
        Damaged, ArtifactRefused: As in ``to_compact``.
    """
    began = time.monotonic()
    layouts = {file: _layout(file) for file in sorted(model.iterdir()) if is_plain_name(file.name)}
    if not any(layout.is_sparse for layout in layouts.values()):
        log.info("no compact form: no matrix of %s is sparse enough to shrink", model)
        return 0
    folder.mkdir(parents=True)
    after = sum(_pack(layout, folder / f"{compact_name(file.name)}{PACKED}") for file, layout in layouts.items())
    before = sum(file.stat().st_size for file in layouts)
    log.info("compact form: %d -> %d bytes in %.1f s", before, after, time.monotonic() - began)
    if after < before:
        return after
    log.info("no compact form: it would not be smaller")
    shutil.rmtree(folder)
    return 0


def _pack(layout: _Layout, packed: Path) -> int:
    """Write one file; returns its bytes."""
    head = layout.head()
    size = len(head) + sum(part.num_bytes for part in layout.parts)
    packer = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    with packed.open("wb") as out, packer.stream_writer(out, size=size, closefd=False) as stream:
        stream.write(head)
        for bits in _data(layout):
            stream.write(bits.reshape(-1).view(np.uint8).data)
    return packed.stat().st_size


def _layout(plain: Path) -> _Layout:
    file = open_weights(plain)
    if is_compact(file):
        raise ArtifactRefused(f"{plain} is compact already; turn it back with --to plain")
    try:
        refuse_gaps(file.tensors, 8 + len(file.header.encode()), plain.stat().st_size)
    except ValueError as error:
        raise ArtifactRefused(f"{plain} is no tidy safetensors file: {error}; load it and save it again") from error
    parts: list[Part] = []
    for info in file.tensors.values():
        parts += _sparse_parts(file, info) or [Part(info.name, info.dtype, info.shape, info.num_bytes)]
    return _Layout(file, in_order(parts))


def _sparse_parts(file: WeightFile, info: TensorInfo) -> list[Part]:
    if not may_shrink(info.name, info.shape, file.tensors):
        return []
    return sparse_parts(info.name, info.dtype, info.shape, int(np.count_nonzero(bits_of(file, info.name))))


def _data(layout: _Layout) -> Iterator[Bits]:
    """The data of each part, in order."""
    file = layout.plain
    for part in layout.parts:
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
            yield row_begins(np.count_nonzero(bits_RC, axis=1))
