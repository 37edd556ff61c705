"""What an attempt left in its directory: heartbeat, rank errors, outcome, logs. Read leniently and within bounds;
what cannot be read does not exist. Decides nothing."""

import json
import logging
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from prunus.configs import Outcome, Progress, RankError
from prunus.configs.artifacts.layout import JobDirectory
from prunus.configs.values.base import Record

log = logging.getLogger(__name__)

MAX_RECORD_BYTES = 1 << 20
MAX_CHUNK_BYTES = 1 << 20
DRIVER_LOG = "driver.log"
"""End of the driver's output, kept by the scheduler when an attempt ends: Ray forgets it with its head."""
_KEPT_BYTES = 65_536
_CUT = re.compile(rb"\[prunus: the first (\d{1,15}) bytes are not kept\]\n")
"""First line of a kept log that lacks its beginning."""
Kind = TypeVar("Kind", bound=Record)


@dataclass(frozen=True)
class Left:
    """What one attempt has left so far."""

    outcome: Outcome | None
    progress: Progress | None
    first_error: RankError | None
    """The earliest among the ranks: the cause, not what followed from it."""


def read_attempt(directory: JobDirectory, number: int) -> Left:
    """Read the records of attempt ``number``."""
    folder = directory.attempt(number)
    errors = [error for path in sorted(folder.glob("error-rank-*.json")) if (error := _read(path, RankError))]
    return Left(
        outcome=_read(directory.outcome(number), Outcome),
        progress=_read(directory.progress(number), Progress),
        first_error=min(errors, key=lambda error: error.time, default=None),
    )


def _read(path: Path, kind: type[Kind]) -> Kind | None:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_RECORD_BYTES + 1)
    except OSError:
        return None
    try:
        if len(data) > MAX_RECORD_BYTES:
            raise ValueError(f"larger than {MAX_RECORD_BYTES:,} bytes")
        values = json.loads(data)
        if isinstance(values, dict) and isinstance(values.get("metrics"), dict):
            values["metrics"] = _finite(values["metrics"])
        return kind.model_validate(values)
    except (ValueError, ValidationError) as error:
        log.warning("%s is no %s and was ignored: %s", path, kind.__name__, error)
        return None


def _finite(metrics: dict[str, Any]) -> dict[str, float]:
    """A curve that became NaN must not hide the record it stands in."""
    return {name: value for name, value in metrics.items() if isinstance(value, int | float) and math.isfinite(value)}


def read_log(path: Path, offset: int, *, ended: bool) -> tuple[bytes, int, bool]:
    """Read at most 1 MiB of a log from byte ``offset`` on.

    Args:
        ended: Nobody writes to it any more.

    Returns:
        The bytes (never cut inside a UTF-8 character while more may follow), the next offset, and whether that is
        the end for good.
    """
    try:
        # A link in a job's directory could lead anywhere: it is not followed.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b"", offset, ended
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        file.seek(min(offset, size))
        data = file.read(MAX_CHUNK_BYTES)
    return cut_log(data, min(offset, size), at_end=offset + len(data) >= size, ended=ended)


def driver_log_tail(text: str) -> str:
    """The end of the driver's output that is kept, with a first line that counts what is not."""
    data = text.encode()
    tail = data[-_KEPT_BYTES:].decode(errors="ignore")  # May begin inside a character.
    dropped = len(data) - len(tail.encode())
    return f"[prunus: the first {dropped} bytes are not kept]\n{tail}" if dropped else text


def read_kept_driver_log(path: Path, offset: int) -> tuple[bytes, int, bool]:
    """As ``read_log`` of an ended attempt, ``offset`` and the next one counted in the whole output, so that a reader
    who followed it live goes on where it was."""
    cut = _CUT.match(read_log(path, 0, ended=True)[0])
    if cut is None:
        return read_log(path, offset, ended=True)
    dropped = int(cut[1])
    shift = dropped - cut.end()
    data, position, finished = read_log(path, offset - shift if offset >= dropped else 0, ended=True)
    return data, position + shift, finished


def cut_log(data: bytes, offset: int, *, at_end: bool, ended: bool) -> tuple[bytes, int, bool]:
    """Hold back an incomplete last character while more may follow; see ``read_log``."""
    finished = ended and at_end
    if not finished:
        data = data[: len(data) - _partial_tail(data)]
    return data, offset + len(data), finished


def _partial_tail(data: bytes) -> int:
    """Bytes at the end that begin a UTF-8 character without finishing it (0 to 3)."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0b1100_0000 == 0b1000_0000:
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return back if back < length else 0
    return 0
