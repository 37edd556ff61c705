"""The spool of an ended job, seen from the server: how long, how much of it MLflow has, how it ends. Never reads all of
it, and writes one thing: how the job ended, where its own processes could not.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prunus.configs import SpoolCursor
from prunus.configs.artifacts.layout import JobDirectory
from prunus.service.store.rows import AttemptRow

_SETTLE_S = 10.0
"""After a job's end, until its last process has surely stopped writing (Ray grants 3 s)."""
_TAIL_BYTES = 1 << 20


@dataclass(frozen=True)
class Spool:
    """What lies in ``tracking/``."""

    size: int
    """Bytes."""
    status: str | None
    """The status that the last operation sets; None: it sets none, or was cut short."""
    cursor: SpoolCursor


def is_quiet(directory: JobDirectory, attempts: Sequence[AttemptRow], now: float) -> bool:
    """Nobody writes to the spool: every attempt has ended a while ago, and none that we do not know is fenced in."""
    ends = [attempt.finished_at for attempt in attempts]
    if any(end is None or now - end < _SETTLE_S for end in ends):
        return False
    try:
        newest = int(directory.fence.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return True
    return newest <= attempts[-1].token


def read_spool(directory: JobDirectory) -> Spool | None:
    """Read what there is to know of a spool without reading all of it; None if there is none."""
    cursor = SpoolCursor.read(directory.cursor)
    try:
        with directory.spool.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read()
    except FileNotFoundError:
        return None
    return Spool(size, _last_status(tail), cursor)


def _last_status(tail: bytes) -> str | None:
    lines = tail.splitlines()
    if not lines or not tail.endswith(b"\n"):
        return None
    try:
        operation = json.loads(lines[-1])
        return str(operation["status"]) if operation["op"] == "status" else None
    except (ValueError, KeyError, TypeError):
        return None


def append_status(spool: Path, status: str) -> None:
    """Append the operation that sets a run's status, in one write; a line cut by a crash is ended before it."""
    descriptor = os.open(spool, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        cut = size > 0 and file.read(1) != b"\n"
        file.write((b"\n" if cut else b"") + json.dumps({"op": "status", "status": status}).encode() + b"\n")
        os.fsync(descriptor)
