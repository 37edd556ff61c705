"""Clips on disk: a list of those that are used, and their samples as 16-bit numbers at the model's rate.

::

    list entry     clips.json    name, transcript, samples and digest of each   key: all of this
    samples entry  samples.bin   int16, one clip after the other                key: digests of the clips, rate
                   bounds.bin    int64, N + 1

Other transcript rules or another vocabulary make another list and share the samples. A clip whose header was fine and
whose decoding failed has no samples; the reason is in the samples' ``meta.json``. With ``streaming`` there is the
list alone, places included, and clips are decoded where they are used.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from prunus.jobs.data.pipeline.cache import content_key, entry, open_array, read_meta
from prunus.jobs.data.speech.clips.audio import Audio, BadAudio, Samples, decode
from prunus.jobs.data.speech.clips.layouts import ClipList
from prunus.jobs.data.speech.clips.probes import num_workers
from prunus.jobs.data.speech.clips.subset import REASONS, Chosen, LeftOut, Subset

log = logging.getLogger(__name__)
_AT_A_TIME = 128
_LOG_EVERY_S = 30.0


class Recordings(Protocol):
    """Samples of clips by number."""

    num_samples_N: npt.NDArray[np.int64]
    """Samples of each clip; 0 where it gave none."""
    faults: dict[int, str]
    """Why it gave none."""

    def samples(self, number: int) -> Samples:
        """Return a clip.

        Raises:
            BadAudio: It cannot be decoded (only where that happens at use).
        """
        ...


@dataclass(frozen=True)
class Listed:
    """A clip of a list entry."""

    name: str
    text: str | None
    num_samples: int
    digest: str
    file: str | None


@dataclass(frozen=True)
class ClipFile:
    """A list entry.

    Attributes:
        name: The source in words.
        clips: Those that are used.
        left_out: Those that are not.
        num_seen: All that were looked at.
    """

    name: str
    clips: list[Listed]
    left_out: LeftOut
    num_seen: int


def list_entry(cache_dir: Path, subset: Subset, *, with_files: bool) -> Path:
    """Write which clips are used and why others are not.

    Raises:
        StorageError: The cache cannot be written.
    """
    clips = [
        [c.clip.name, c.clip.text, c.num_samples, c.digest, str(c.clip.audio) if with_files else None]
        for c in subset.chosen
    ]
    content = {"name": subset.name, "clips": clips, "left_out": subset.left_out.by_reason, "num_seen": subset.num_seen}
    text = json.dumps(content)
    key = content_key("clips", hashlib.sha256(text.encode()).hexdigest())

    def write(folder: Path) -> dict[str, Any]:
        (folder / "clips.json").write_text(text, encoding="utf-8")
        return {"count": len(clips)}

    return entry(cache_dir, key, write)


def read_list(folder: Path) -> ClipFile:
    """Read a list entry."""
    content = json.loads((folder / "clips.json").read_text(encoding="utf-8"))
    left_out = LeftOut({r: [(n, why) for n, why in content["left_out"].get(r, [])] for r in REASONS})
    return ClipFile(content["name"], [Listed(*fields) for fields in content["clips"]], left_out, content["num_seen"])


def samples_entry(cache_dir: Path, clips: ClipList, chosen: list[Chosen], rate: int) -> Path:
    """Decode clips, several at a time, or find them decoded.

    Raises:
        StorageError: The cache cannot be written.
    """
    digest = hashlib.sha256("\n".join(c.digest for c in chosen).encode()).hexdigest()
    opened = [partial(clips.open, c.clip) for c in chosen]
    return entry(
        cache_dir, content_key("samples", digest, rate), lambda folder: _write_samples(folder, clips.name, opened, rate)
    )


def _write_samples(folder: Path, name: str, opened: Sequence[Callable[[], Audio]], rate: int) -> dict[str, Any]:
    lengths: list[int] = []
    faults: dict[int, str] = {}
    began = last = time.monotonic()
    with (folder / "samples.bin").open("wb") as file, ThreadPoolExecutor(num_workers()) as pool:
        for start in range(0, len(opened), _AT_A_TIME):
            for result in pool.map(lambda audio: _decoded(audio, rate), opened[start : start + _AT_A_TIME]):
                if isinstance(result, str):
                    faults[len(lengths)] = result
                    lengths.append(0)
                else:
                    lengths.append(len(result))
                    result.tofile(file)
            if time.monotonic() - last > _LOG_EVERY_S:
                last = time.monotonic()
                hours, rest = sum(lengths) / rate / 3600, len(opened) - len(lengths)
                eta_s = (last - began) / len(lengths) * rest
                log.info("%s: %.1f h decoded, %d clips left, about %.0f s", name, hours, rest, eta_s)
    np.cumsum([0, *lengths], dtype=np.int64).tofile(folder / "bounds.bin")
    return {"count": len(lengths), "num_samples": sum(lengths), "faults": faults}


def _decoded(audio: Callable[[], Audio], rate: int) -> Samples | str:
    try:
        return decode(audio(), rate)
    except BadAudio as error:
        return str(error)


class StoredRecordings:
    """A samples entry, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        meta = read_meta(folder)
        self._samples: npt.NDArray[np.int16] = open_array(folder, "samples.bin", np.int16, (meta["num_samples"],))
        self._bounds_N: npt.NDArray[np.int64] = np.fromfile(folder / "bounds.bin", np.int64)
        self.num_samples_N = np.diff(self._bounds_N)
        self.faults = {int(number): reason for number, reason in meta["faults"].items()}

    def samples(self, number: int) -> Samples:
        """Return a clip."""
        return self._samples[self._bounds_N[number] : self._bounds_N[number + 1]]


class UndecodedRecordings:
    """Clips that are decoded where they are used. Each has the length that its header promises, cut or padded.

    Args:
        audio: File or bytes of each clip.
        num_samples: What their headers promise at ``rate``.
        rate: Samples per second that the model hears.
    """

    def __init__(self, audio: Sequence[Audio], num_samples: Sequence[int], rate: int) -> None:
        self._audio = audio
        self._rate = rate
        self.num_samples_N = np.asarray(num_samples, dtype=np.int64)
        self.faults: dict[int, str] = {}

    def samples(self, number: int) -> Samples:
        """Return a clip.

        Raises:
            BadAudio: It cannot be decoded.
        """
        length = int(self.num_samples_N[number])
        samples_S = decode(self._audio[number], self._rate)[:length]
        return np.pad(samples_S, (0, length - len(samples_S)))
