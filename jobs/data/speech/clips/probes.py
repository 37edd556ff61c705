"""What a clip's header says, and a digest of its content, for many clips at a time; remembered between starts.

The memory is a file in the cache. A clip of it is opened again only if its size, times or inode have changed, so a
second start costs one ``stat`` per clip. Losing the memory loses time, nothing else.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.configs.artifacts.atomic_write import file_aside
from prunus.jobs.data.speech.clips.audio import BadAudio, Header, edge_digest, read_header
from prunus.jobs.data.speech.clips.layouts import Clip, ClipList

_VERSION = 1


@dataclass(frozen=True)
class Probe:
    """What is known of a clip before it is decoded.

    Attributes:
        digest: Of its content; see :func:`prunus.jobs.data.speech.clips.audio.edge_digest`.
        header: Length and rate; None with a fault.
        fault: Why it cannot be used.
    """

    digest: str
    header: Header | None
    fault: str = ""


class Probes:
    """Probes of one source's clips.

    Args:
        clips: The source.
        memory: Directory of the cache.
    """

    def __init__(self, clips: ClipList, memory: Path) -> None:
        self._clips = clips
        self._file = memory / "probes" / f"{hashlib.sha256(clips.name.encode()).hexdigest()[:32]}.json"
        self._known: dict[str, list[Any]] = {}
        with suppress(OSError, ValueError, KeyError, TypeError):
            stored = json.loads(self._file.read_text(encoding="utf-8"))
            self._known = stored["clips"] if stored["version"] == _VERSION else {}
        self._changed = False

    def of(self, clips: Iterable[Clip], pool: ThreadPoolExecutor) -> list[Probe]:
        """Probe clips side by side (reading releases the GIL); the order stays."""
        return list(pool.map(self._one, clips))

    def remember(self) -> None:
        """Write what is new for the next start; a disk that is full is the business of others."""
        if not self._changed:
            return
        with suppress(OSError), file_aside(self._file) as aside:
            aside.write_text(json.dumps({"version": _VERSION, "clips": self._known}), encoding="utf-8")

    def _one(self, clip: Clip) -> Probe:
        if clip.fault:
            return Probe("", None, clip.fault)
        try:
            key, state = str(clip.audio), self._state(clip)
        except OSError as error:
            return Probe("", None, "no such file" if isinstance(error, FileNotFoundError) else f"{error.strerror}")
        if (known := self._known.get(key)) is not None and known[0] == state:
            _, digest, num_frames, rate, fault = known
            return Probe(digest, None if fault else Header(num_frames, rate), fault)
        probe = self._open(clip)
        header = probe.header or Header(0, 0)
        self._known[key] = [state, probe.digest, header.num_frames, header.rate, probe.fault]
        self._changed = True
        return probe

    def _open(self, clip: Clip) -> Probe:
        digest = ""
        try:
            audio = self._clips.open(clip)
            digest = edge_digest(audio)
            return Probe(digest, read_header(audio))
        except BadAudio as error:
            return Probe(digest, None, str(error))

    def _state(self, clip: Clip) -> list[Any]:
        if not isinstance(clip.audio, Path):
            return [self._clips.revision]
        stat = clip.audio.stat()
        return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def num_workers() -> int:
    """Return how many threads may decode: the cores that this process has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
