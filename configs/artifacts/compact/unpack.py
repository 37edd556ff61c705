"""Turn the compact form back into the plain file, and unpack what travelled: bounded, checked against the plain file.

NAME.zst -> a zstd frame, no more bytes than the plain file has -> compact file -> plain file, the manifest's sha256
"""

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zstandard

from prunus.configs.artifacts.atomic_write import sync
from prunus.configs.artifacts.compact.layout import DIGEST, HEADER
from prunus.configs.artifacts.compact.read import CompactFile, open_compact, read_tensor
from prunus.configs.artifacts.manifest import FileEntry, sha256_file
from prunus.configs.errors import Damaged

_HEADER_SLACK = 16 * 1024**2
"""Bytes by which a compact file may be larger than the plain one: it has two headers, and the data of one."""
_MAX_WINDOW = 8 * 1024**2
"""Bytes of memory that a frame may ask for; those of our jobs ask for 2 MiB."""
_BLOCK = 1 << 20


def to_plain(compact: Path, plain: Path) -> None:
    """Write the plain form of a compact file: the bytes that it was made of. ``plain`` is not there after an error.

    Raises:
        Damaged: ``compact`` is not a whole file of this format.
    """
    opened = open_compact(compact)
    try:
        with plain.open("wb") as out:
            for data in _plain_data(opened):
                out.write(data)
        if sha256_file(plain) != opened.file.metadata.get(DIGEST):
            raise Damaged(f"{compact} is damaged: turned back it is not the file that it was made of; fetch it again")
    except BaseException:
        plain.unlink(missing_ok=True)
        raise


def unpack(packed: Path, compact: Path, plain: FileEntry) -> None:
    """Write the compact file; every bit of it is checked. ``compact`` is not there after an error.

    Args:
        plain: What the manifest says of the plain file.

    Raises:
        Damaged: ``packed`` is no frame, holds more than it may, or is the compact form of another file.
    """
    try:
        if plain_digest(_unpack(packed, compact, plain)) != plain.sha256:
            raise Damaged(f"{packed} holds other weights than its manifest says; fetch it again")
        sync(compact)
    except BaseException:
        compact.unlink(missing_ok=True)
        raise


def unpack_to_plain(packed: Path, plain_path: Path, plain: FileEntry) -> None:
    """Write the plain file; a compact one beside it is there meanwhile. Nothing is there after an error.

    Raises:
        Damaged: As ``unpack``.
    """
    aside = packed.with_suffix("")
    try:
        _unpack(packed, aside, plain)
        to_plain(aside, plain_path)  # to the digest that _unpack compared with the manifest's
        sync(plain_path)
    finally:
        aside.unlink(missing_ok=True)


def plain_digest(opened: CompactFile) -> str:
    """SHA-256 of the plain file, without writing it.

    Raises:
        Damaged: Parts do not fit together.
    """
    digest = hashlib.sha256()
    for data in _plain_data(opened):
        digest.update(data)
    return digest.hexdigest()


def _unpack(packed: Path, compact: Path, plain: FileEntry) -> CompactFile:
    compact.unlink(missing_ok=True)
    room = plain.size + _HEADER_SLACK
    try:
        with (
            packed.open("rb") as frame,
            compact.open("xb") as out,
            zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(frame) as stream,
        ):
            while block := stream.read(_BLOCK):
                room -= len(block)
                if room < 0:
                    raise Damaged(f"{packed} unpacks to more than the plain file's {plain.size:,} bytes; do not use it")
                out.write(block)
    except zstandard.ZstdError as error:
        raise Damaged(f"{packed} cannot be unpacked ({error}); fetch it again") from error
    opened = open_compact(compact)
    size = 8 + len(opened.file.metadata[HEADER].encode()) + sum(info.num_bytes for info in opened.plain.values())
    if (size, opened.file.metadata.get(DIGEST)) != (plain.size, plain.sha256):
        raise Damaged(f"{packed} is the compact form of another file than the manifest's; do not use it")
    return opened


def _plain_data(opened: CompactFile) -> Iterator[bytes | memoryview]:
    """The plain file, header and tensors as they lie in it."""
    header = opened.file.metadata[HEADER].encode()
    yield struct.pack("<Q", len(header)) + header
    for info in sorted(opened.plain.values(), key=lambda info: (info.offset, info.num_bytes)):
        if info.num_bytes:
            yield read_tensor(opened, info.name).reshape(-1).view(np.uint8).data
