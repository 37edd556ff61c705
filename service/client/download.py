"""Download one file of an artifact: appended to ``NAME.part``, continued after a cut, renamed once its digest is right.

Nothing is written through a link.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from prunus.configs.artifacts.manifest import FileEntry, sha256_file
from prunus.configs.errors import Damaged
from prunus.service.client import Client
from prunus.service.errors import Unreachable
from prunus.service.wire import FileView

MAX_CUTS = 6
"""Cut connections in a row, without a byte between them, after which a fetch gives up."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.4, 5.0
PART = ".part"


@dataclass
class Wire:
    """Where the bytes come from, and how many came."""

    client: Client
    source: str
    pause: Callable[[float], None]
    downloaded: int = 0


def matches(path: Path, file: FileEntry) -> bool:
    """Whether a file is there and is what a manifest says."""
    return path.is_file() and path.stat().st_size == file.size and sha256_file(path) == file.sha256


def download(wire: Wire, remote: FileView, target: Path, report: Callable[[int], None]) -> None:
    """Bring the bytes of one file, going on with its ``.part`` if that fits.

    Args:
        report: Called after every piece with the position in the file.

    Raises:
        Damaged: They differ from the manifest; nothing of them is kept.
        Unreachable: The server stayed away; the ``.part`` is kept.
    """
    part = target.with_name(target.name + PART)
    if size_of(part) > remote.size:
        part.unlink()
    for resumed in (part.exists(), False):
        _fill(wire, remote, part, report)
        if sha256_file(part) == remote.sha256:
            part.replace(target)
            return
        part.unlink()
        if not resumed:
            break
    raise Damaged(
        f"{remote.path} of {wire.source} differs from its manifest (sha256 should be {remote.sha256[:12]}…): "
        "damaged or tampered with; nothing of it was kept"
    )


def asking_again(pause: Callable[[float], None]) -> Retrying:
    """Ask up to ``MAX_CUTS`` times while the server is away, with 0.4, 0.8, 1.6, 3.2 and 5 s between.

    Args:
        pause: Waits so many seconds.
    """
    return Retrying(
        retry=retry_if_exception_type(Unreachable),
        stop=stop_after_attempt(MAX_CUTS),
        wait=wait_exponential(multiplier=_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S),
        sleep=pause,
        reraise=True,
    )


def _fill(wire: Wire, remote: FileView, part: Path, report: Callable[[int], None]) -> None:
    """Append to ``part`` until it has the file's size, asking again after every cut."""
    position = size_of(part)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    with os.fdopen(handle, "ab") as file:
        while position < remote.size:
            position = asking_again(wire.pause)(_go_on, wire, remote, file, position, report)
            if position < remote.size:
                wire.pause(_FIRST_PAUSE_S)
        file.flush()
        os.fsync(file.fileno())


def _go_on(wire: Wire, remote: FileView, file: BinaryIO, position: int, report: Callable[[int], None]) -> int:
    """Append what one connection brings; give the position that it reached, which is a later one.

    Raises:
        Unreachable: The connection was cut before the first byte.
        Damaged: The server's file is longer or shorter than it should be.
    """
    begin = position
    try:
        with wire.client.open_file(wire.source, remote.path, position) as chunks:
            for chunk in chunks:
                if position + len(chunk) > remote.size:
                    raise Damaged(f"{remote.path} of {wire.source} is longer than its manifest says")
                file.write(chunk)
                position += len(chunk)
                wire.downloaded += len(chunk)
                report(position)
    except Unreachable:
        if position == begin:
            raise
    if position == begin:
        raise Damaged(f"{remote.path} of {wire.source} ends after {position:,} bytes, too early")
    return position


def make_parents(dest: Path, target: Path) -> None:
    """Create the folders of a file below ``dest``; none of them, and neither the file nor its part, may be a link.

    Raises:
        Damaged: One is.
    """
    part = target.with_name(target.name + PART)
    for path in (*(p for p in target.parents if dest in p.parents), target, part):
        if path.is_symlink():
            raise Damaged(f"{path} is a symbolic link, which could lead out of {dest}; remove it")
    target.parent.mkdir(parents=True, exist_ok=True)


def size_of(path: Path) -> int:
    """Bytes of a plain file; 0 for what is none."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return 0
    return info.st_size if stat.S_ISREG(info.st_mode) else 0
