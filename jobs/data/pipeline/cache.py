"""Prepared data on disk: built once, found again by content, safe with several jobs at a time.

An entry is a directory of raw arrays plus ``meta.json``. It is written aside under a name of its own and renamed, so
an entry that is there is whole; of two builders the first to rename wins and the other uses the winner's.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from prunus.configs.artifacts.atomic_write import directory_aside
from prunus.jobs.errors import StorageError
from prunus.jobs.ranks import Ranks

VERSION = "1"
"""Part of every key: raise it when the way of preparing data changes."""


class Write(Protocol):
    """Fills an empty directory and returns what ``meta.json`` shall hold."""

    def __call__(self, folder: Path) -> dict[str, Any]: ...


def content_key(*parts: object) -> str:
    """Return a sha256 over the parts and the version of this code."""
    return hashlib.sha256(json.dumps([VERSION, *map(str, parts)]).encode()).hexdigest()


def shared_entry(ranks: Ranks, find: Callable[[], Path]) -> Path:
    """Run ``find`` (key and :func:`entry`) on rank 0 and give its result to all ranks.

    A rank that does not see rank 0's disk runs ``find`` itself.
    """
    found = ranks.main_first(lambda: find() if ranks.is_main else None)
    path = ranks.gather(found)[0]
    assert path is not None
    return path if path.is_dir() else find()


def entry(cache_dir: Path, key: str, write: Write) -> Path:
    """Return the entry of ``key``, writing it if it is not there or not whole.

    Raises:
        StorageError: The disk is full or the cache cannot be written.
    """
    final = cache_dir / key
    if final.is_dir():
        if _is_whole(final):
            return final
        shutil.rmtree(final, ignore_errors=True)
    try:
        with directory_aside(final) as aside:
            meta = write(aside)
            meta["files"] = {path.name: path.stat().st_size for path in aside.iterdir()}
            (aside / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    except OSError as error:
        if not (error.errno in {errno.ENOTEMPTY, errno.EEXIST} and final.is_dir()):
            raise StorageError(f"cannot write prepared data to {cache_dir}: {error}; free space or move it") from error
    return final


def read_meta(folder: Path) -> dict[str, Any]:
    """Return what the writer of the entry left in ``meta.json``."""
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return meta


def open_array(folder: Path, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Map a raw array of an entry into memory, read-only."""
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(folder / name, dtype=dtype, mode="r", shape=shape)


def token_dtype(vocab_size: int) -> str:
    """Return the smallest unsigned type that holds every token id."""
    return "uint16" if vocab_size <= 2**16 else "uint32"


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a sha256 over everything of a fast tokenizer that can change a token id."""
    ids = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    description.update(truncation=None, padding=None)  # state of the last call, not of the tokenizer
    return hashlib.sha256(json.dumps([description, ids, list(tokenizer.model_input_names)]).encode()).hexdigest()


def _is_whole(folder: Path) -> bool:
    try:
        files: dict[str, int] = read_meta(folder)["files"]
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError):
        return False
