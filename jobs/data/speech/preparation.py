"""One source of speech: its clips found, chosen, decoded and checked, once for all ranks."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from prunus.configs.tasks.speech_data import SpeechData, SpeechSource, TranscriptRules
from prunus.jobs.data.pipeline.cache import content_key, shared_entry
from prunus.jobs.data.speech.batches.collator import Clips
from prunus.jobs.data.speech.clips.clip_cache import (
    Recordings,
    StoredRecordings,
    UndecodedRecordings,
    list_entry,
    read_list,
    samples_entry,
)
from prunus.jobs.data.speech.clips.hub import hub_clips
from prunus.jobs.data.speech.clips.layouts import ClipList, find_clips
from prunus.jobs.data.speech.clips.probes import Probes
from prunus.jobs.data.speech.clips.subset import LeftOut, Limits, Subset, Unfit, choose, none_left, report
from prunus.jobs.data.speech.speech_input import SpeechInput
from prunus.jobs.data.speech.units.transcripts import Units, to_units
from prunus.jobs.data.speech.units.vocabulary import Vocabulary
from prunus.jobs.errors import DataError
from prunus.jobs.ranks import Ranks

log = logging.getLogger(__name__)

SplitName = Literal["train", "eval"]


@dataclass(frozen=True)
class Part:
    """The used clips of one source, with exact lengths.

    Attributes:
        name: The source in words.
        group: Its name in the evaluation: its own, else its language.
        recordings: Samples of all clips of the list.
        numbers: Those of them that are used.
        clip_names: Of the used ones.
        units: Of the used ones.
        left_out: The others that were looked at.
        num_seen: All that were looked at.
        digest: Stands for the clips' content and transcripts.
    """

    name: str
    group: str
    recordings: Recordings
    numbers: list[int]
    clip_names: list[str]
    units: list[Units]
    left_out: LeftOut
    num_seen: int
    digest: str

    @property
    def num_samples(self) -> int:
        """Samples of the used clips."""
        return int(self.recordings.num_samples_N[self.numbers].sum())


@dataclass(frozen=True)
class Preparation:
    """What all sources of a job share.

    Attributes:
        data: What the spec says of the clips.
        rules: And of the transcripts; None where none are needed.
        min_frames: Least frames of a clip.
        inputs: What the model asks for.
        cache_dir: Directory of the cache.
        ranks: This rank.
    """

    data: SpeechData
    rules: TranscriptRules | None
    min_frames: int
    inputs: SpeechInput
    cache_dir: Path
    ranks: Ranks

    def part(self, split: SplitName, place: int, source: SpeechSource) -> Part:
        """Return the clips of a source that are used; call it on every rank.

        Raises:
            DataError: The source cannot serve, or too many of its clips are bad.
            StorageError: The cache cannot be written.
        """
        where = f"task.data.{split}[{place}]"
        at_use = self.data.streaming and not source.hub
        limits = self._limits(split, source)

        # Each rank that does not see rank 0's disk does all this itself; where the cache has it, nothing is opened.
        @cache
        def found() -> ClipList:
            find = hub_clips if source.hub else find_clips
            return find(source, where, transcribed=self.rules is not None)

        @cache
        def subset() -> Subset:
            return self._choose(split, found(), limits)

        rate = self.inputs.sampling_rate
        recordings: Recordings
        folder = shared_entry(self.ranks, lambda: list_entry(self.cache_dir, subset(), with_files=at_use))
        listed = read_list(folder)
        if at_use:
            places = [Path(clip.file or "") for clip in listed.clips]
            recordings = UndecodedRecordings(places, [clip.num_samples for clip in listed.clips], rate)
        else:
            samples = shared_entry(self.ranks, lambda: samples_entry(self.cache_dir, found(), subset().chosen, rate))
            recordings = StoredRecordings(samples)
        group = source.name or source.language or f"{split}-{place}"
        content = [(clip.name, clip.text, clip.num_samples, clip.digest) for clip in listed.clips]
        digest = content_key("part", rate, content)  # places and the number of bad clips do not count
        part = Part(listed.name, group, recordings, [], [], [], listed.left_out, listed.num_seen, digest)
        for number, clip in enumerate(listed.clips):
            num_samples, units = int(recordings.num_samples_N[number]), limits.units(clip.text)
            fault = recordings.faults.get(number)
            # Headers can be a little wrong: what was chosen by them is looked at again.
            unfit: Unfit | None = ("bad", fault) if fault else limits.unfit(num_samples, units)
            if unfit is not None:
                part.left_out.add(unfit[0], clip.name, unfit[1])
                continue
            part.numbers.append(number)
            part.clip_names.append(clip.name)
            part.units.append(units)
        report(part.name, part.left_out, part.num_seen, self.data.max_bad, warn=self.ranks.is_main)
        if not part.numbers:
            raise DataError(none_left(part.name, part.left_out, part.num_seen))
        if self.ranks.is_main:
            hours, left_out = part.num_samples / rate / 3600, part.left_out.total
            log.info("%s: %d clips, %.2f h; %d left out", part.name, len(part.numbers), hours, left_out)
        return part

    def _choose(self, split: SplitName, clips: ClipList, limits: Limits) -> Subset:
        data, probes = self.data, Probes(clips, self.cache_dir)
        if split == "eval":
            return choose(clips, probes, limits, max_clips=data.max_eval_clips)
        return choose(clips, probes, limits, minutes=data.minutes, seed=data.subset_seed)

    def _limits(self, split: SplitName, source: SpeechSource) -> Limits:
        return Limits(
            rate=self.inputs.sampling_rate,
            frames=self.inputs.frames,
            min_s=self.data.min_s,
            max_s=self.data.max_s if split == "train" else None,
            min_frames=self.min_frames if split == "train" else 1,
            to_units=to_units(self.rules, source.language) if self.rules else None,
        )


def join(parts: Sequence[Part], vocabulary: Vocabulary | None, groups: tuple[str, ...]) -> Clips:
    """Return the clips of several sources as one split, in order; without a vocabulary they have no units."""
    places = [(source, number) for source, part in enumerate(parts) for number in part.numbers]
    nothing = np.empty(0, np.int32)
    numbers = [vocabulary.encode(units) if vocabulary else nothing for part in parts for units in part.units]
    group_of = {group: number for number, group in enumerate(groups)}
    return Clips(
        recordings=[part.recordings for part in parts],
        places_N2=np.asarray(places, dtype=np.int64),
        num_samples_N=np.concatenate([part.recordings.num_samples_N[part.numbers] for part in parts]),
        labels=np.concatenate(numbers),
        bounds=np.cumsum([0, *map(len, numbers)], dtype=np.int64),
        groups_N=np.concatenate([np.full(len(p.numbers), group_of.get(p.group, -1), np.int64) for p in parts]),
        names=[name for part in parts for name in part.clip_names],
        keys_N=np.arange(len(places)),
    )
