"""Which clips of a source are used: those that can serve, of them a random part, and why the others are not.

Two kinds are left out. Bad ones (corrupt, cut off, empty, no transcript, a torn row) say that something is wrong with
the data; more than a given share of them ends the job. The others do not suit the task: too short, too long, or with
more units than CTC can place on their frames (Graves 2006: one frame per unit, and one between two equal ones).
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from prunus.jobs.data.speech.clips.layouts import Clip, ClipList
from prunus.jobs.data.speech.clips.probes import Probe, Probes, num_workers
from prunus.jobs.data.speech.units.transcripts import ToUnits, Units, num_repeats
from prunus.jobs.errors import DataError

log = logging.getLogger(__name__)

Reason = Literal["bad", "too_short", "too_long", "transcript_too_long"]
Unfit = tuple[Reason, str]
"""Why a clip is not used, and the figures."""
REASONS: tuple[Reason, ...] = ("bad", "too_short", "too_long", "transcript_too_long")
_AT_A_TIME = 512
_LOG_EVERY_S = 30.0
_NAMED = 5


@dataclass(frozen=True)
class Limits:
    """What a clip must be like.

    Attributes:
        rate: Samples per second that the model hears.
        frames: Samples -> frames of the model.
        min_s: Least seconds.
        max_s: Most seconds; None: any.
        min_frames: Least frames (those of one SpecAugment span).
        to_units: Transcript -> units; None where none are needed.
    """

    rate: int
    frames: Callable[[int], int]
    min_s: float
    max_s: float | None
    min_frames: int
    to_units: ToUnits | None

    def units(self, clip_text: str | None) -> Units:
        """Return the units of a transcript, () without one."""
        return self.to_units(clip_text) if self.to_units is not None and clip_text else ()

    def unfit(self, num_samples: int, units: Units) -> Unfit | None:
        """Return why a clip of so many samples cannot be used with these units; None if it can."""
        seconds, frames = num_samples / self.rate, self.frames(num_samples)
        if self.to_units is not None and not units:
            return "bad", "no transcript is left of its text"
        if seconds < self.min_s:
            return "too_short", f"{seconds:.2f} s"
        if frames < max(1, self.min_frames):
            span = " (a span of the masks)" if self.min_frames > 1 else ""
            return "too_short", f"{frames} frames, {max(1, self.min_frames)} are needed{span}"
        if self.max_s is not None and seconds > self.max_s:
            return "too_long", f"{seconds:.1f} s"
        if frames < len(units) + num_repeats(units):
            return "transcript_too_long", f"{len(units)} units, {num_repeats(units)} of them repeated, {frames} frames"
        return None


@dataclass
class LeftOut:
    """Clips that are not used: reason -> (name, detail) of each."""

    by_reason: dict[Reason, list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, reason: Reason, name: str, detail: str) -> None:
        """Count a clip."""
        self.by_reason.setdefault(reason, []).append((name, detail))

    def count(self, reason: Reason) -> int:
        """Return how many there are."""
        return len(self.by_reason.get(reason, ()))

    @property
    def total(self) -> int:
        """How many there are of all reasons."""
        return sum(map(len, self.by_reason.values()))

    def named(self, reason: Reason) -> str:
        """Return the first ones in words."""
        some = self.by_reason.get(reason, [])
        return "; ".join(f"{name}: {detail}" for name, detail in some[:_NAMED]) + ("; ..." if some[_NAMED:] else "")


@dataclass(frozen=True)
class Chosen:
    """A clip that is used, as far as its header tells.

    Attributes:
        clip: Name, transcript and place.
        digest: Of its content.
        num_samples: At the model's rate.
    """

    clip: Clip
    digest: str
    num_samples: int


@dataclass(frozen=True)
class Subset:
    """The clips of a source that are used.

    Attributes:
        name: The source in words, for messages.
        chosen: In the order of the source.
        left_out: The others that were looked at.
        num_seen: Clips that were looked at: all, but where a subset was full before.
    """

    name: str
    chosen: list[Chosen]
    left_out: LeftOut
    num_seen: int


def choose(
    clips: ClipList,
    probes: Probes,
    limits: Limits,
    *,
    minutes: float | None = None,
    seed: int = 0,
    max_clips: int | None = None,
) -> Subset:
    """Return the clips that can be used.

    Args:
        clips: The source.
        probes: What their headers say.
        limits: What a clip must be like.
        minutes: Take a random part: in an order that depends on seed and names alone, up to the first clip that would
            exceed so many minutes. So for one seed 10 minutes are a part of 60, and the minutes are kept to within
            a clip.
        seed: Which part.
        max_clips: Take the first so many.

    Raises:
        DataError: None can be used.
    """
    order: Sequence[int] = range(len(clips.clips))
    if minutes is not None:
        order = sorted(order, key=lambda i: (_place(seed, clips.clips[i].name), i))
    chosen: list[tuple[int, Chosen]] = []
    left_out, room, num_seen = LeftOut(), (minutes or 0.0) * 60 * limits.rate, 0
    try:
        for number, probe in _probed(clips, probes, order):
            if max_clips is not None and len(chosen) == max_clips:
                break
            clip = clips.clips[number]
            num_samples = probe.header.resampled(limits.rate) if probe.header else 0
            fault: Unfit | None = ("bad", probe.fault) if probe.fault else None
            fault = fault or limits.unfit(num_samples, limits.units(clip.text))
            if fault is None and minutes is not None and num_samples > room:
                break
            num_seen += 1
            if fault is not None:
                left_out.add(fault[0], clip.name, fault[1])
                continue
            room -= num_samples
            chosen.append((number, Chosen(clip, probe.digest, num_samples)))
        else:
            if minutes is not None:
                held = minutes - room / 60 / limits.rate
                log.warning("%s: holds %.1f of task.data.minutes %g: all are used", clips.name, held, minutes)
    finally:
        probes.remember()
    if not chosen:
        raise DataError(none_left(clips.name, left_out, num_seen, minutes))
    return Subset(clips.name, [item for _, item in sorted(chosen, key=lambda pair: pair[0])], left_out, num_seen)


def none_left(name: str, left_out: LeftOut, num_seen: int, minutes: float | None = None) -> str:
    """Say that no clip is left, and why."""
    if minutes is not None and num_seen == 0:
        return f"{name}: task.data.minutes {minutes:g} is shorter than the first clip of the subset; give more"
    why = "; ".join(f"{left_out.count(r)} {r} ({left_out.named(r)})" for r in REASONS if left_out.count(r))
    return f"{name}: none of {num_seen} clips can be used: {why}. Correct the data, or min_s, max_s and columns"


def report(name: str, left_out: LeftOut, num_seen: int, max_bad: float, *, warn: bool) -> None:
    """Log what is left out.

    Raises:
        DataError: More than ``max_bad`` of the clips are bad.
    """
    bad = left_out.count("bad")
    if bad > max_bad * num_seen:
        raise DataError(
            f"{name}: {bad} of {num_seen} clips ({bad / num_seen:.1%}) are bad, more than task.data.max_bad "
            f"{max_bad:g}: {left_out.named('bad')}. Correct them or their rows, or raise max_bad"
        )
    for reason in REASONS:
        if warn and left_out.count(reason):
            log.warning(
                "%s: %d of %d clips left out, %s: %s",
                name, left_out.count(reason), num_seen, reason.replace("_", " "), left_out.named(reason),
            )  # fmt: skip


def _place(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()


def _probed(clips: ClipList, probes: Probes, order: Sequence[int]) -> Iterator[tuple[int, Probe]]:
    """Yield clips and probes in this order, a few hundred ahead."""
    last = time.monotonic()
    with ThreadPoolExecutor(num_workers()) as pool:
        for start in range(0, len(order), _AT_A_TIME):
            part = order[start : start + _AT_A_TIME]
            yield from zip(part, probes.of([clips.clips[i] for i in part], pool), strict=True)
            if time.monotonic() - last > _LOG_EVERY_S:
                last = time.monotonic()
                log.info("%s: looked at %d of %d clips", clips.name, start + len(part), len(order))
