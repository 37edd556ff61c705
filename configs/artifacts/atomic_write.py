"""Write aside, then rename: a reader sees the old file or directory, the new one, or none; never a part.

    write_atomic(path, text)                   a small file
    with file_aside(path) as aside: ...        a file that a library writes
    with directory_aside(path) as aside: ...   a directory
    commit(aside, path)                        what was written aside by other means

What a process that died has left aside is hidden: its name is ``.NAME.<random>.tmp``; ``leftovers`` finds it.

Two kinds stand elsewhere, because what lies aside there outlives the process that began it: checkpoints, whose ranks
all write into one directory before rank 0 commits it (``jobs.training.checkpoint``), and downloads, which continue
after a cut (``service.client.download``).
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomic(path: Path, text: str) -> None:
    """Write a text file, which is on the disk when this returns."""
    with file_aside(path, fsync=True) as aside:
        aside.write_text(text, encoding="utf-8")


@contextmanager
def file_aside(path: Path, *, fsync: bool = False) -> Iterator[Path]:
    """Give a name beside ``path``; the file that is written there replaces ``path``, or is removed after an error.

    Args:
        fsync: Return only when it is on the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _beside(path)
    try:
        yield aside
        commit(aside, path, fsync=fsync)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def directory_aside(path: Path) -> Iterator[Path]:
    """Give an empty directory beside ``path``; it becomes ``path``, or is removed after an error.

    Raises:
        OSError: ``path`` is there and not empty: another process was first (``ENOTEMPTY`` or ``EEXIST``).
    """
    aside = _beside(path)
    try:
        aside.mkdir(parents=True)
        yield aside
        commit(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def leftovers(directory: Path) -> list[Path]:
    """What processes that died have left aside in a directory, and what others are writing there now."""
    return list(directory.glob(".*.tmp"))


def commit(aside: Path, path: Path, *, fsync: bool = False) -> None:
    """Rename ``aside`` to ``path``; a directory there must be empty.

    Args:
        fsync: Bring content and name to the disk, before and after.
    """
    if fsync:
        files = aside.rglob("*") if aside.is_dir() else [aside]
        for file in files:
            if file.is_file():
                sync(file)
    aside.replace(path)
    if fsync:
        sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file, or a directory's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
