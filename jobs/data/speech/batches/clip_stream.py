"""Training clips from a stream of a hub data set: rows with their audio, read as often as the steps ask.

What a stream cannot know is refused: a vocabulary of its transcripts, a part of so many minutes, batches by seconds.
Every rank reads all rows and their headers, and decodes its own. Steps, shuffling and resume: ``pipeline.stream``.
"""

import logging
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.configs import JobSpec
from prunus.configs.tasks.ctc import CTC
from prunus.jobs.data.pipeline.batches import Batch
from prunus.jobs.data.pipeline.order import Layout
from prunus.jobs.data.pipeline.stream import StreamedBatches
from prunus.jobs.data.speech.batches.collator import Clips, Collator
from prunus.jobs.data.speech.batches.spec_augment import SpecAugmentMasks
from prunus.jobs.data.speech.clips.audio import Audio, BadAudio, read_header
from prunus.jobs.data.speech.clips.clip_cache import UndecodedRecordings
from prunus.jobs.data.speech.clips.hub import AudioRows, hub_rows
from prunus.jobs.data.speech.clips.layouts import audio_of, columns_of
from prunus.jobs.data.speech.clips.subset import LeftOut, Limits, Unfit, none_left, report
from prunus.jobs.data.speech.speech_input import SpeechInput
from prunus.jobs.data.speech.units.transcripts import to_units
from prunus.jobs.data.speech.units.vocabulary import Vocabulary
from prunus.jobs.errors import DataError
from prunus.jobs.ranks import Ranks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamedClip:
    """A row that can be used, not decoded yet."""

    name: str
    audio: Audio
    num_samples: int
    labels: npt.NDArray[np.int32]


class SpeechStage:
    """Turns rows into clips, and clips into batches.

    Args:
        rows: The train split.
        spec: Of the job.
        inputs: What the model asks for.
        vocabulary: Numbers of units.
        limits: What a clip must be like.
        masks: SpecAugment; None for none.
    """

    def __init__(
        self,
        rows: AudioRows,
        task: CTC,
        inputs: SpeechInput,
        vocabulary: Vocabulary,
        limits: Limits,
        masks: SpecAugmentMasks | None,
    ) -> None:
        self._rows = rows
        self._task = task
        self._inputs = inputs
        self._vocabulary = vocabulary
        self._limits = limits
        self._masks = masks
        opened = rows.open()
        names = opened.column_names or list(next(iter(opened), {}))
        audio, text = columns_of(task.data.train[0], names, rows.name, transcribed=True)
        assert text is not None
        self.columns = (audio, text)

    def start(self, state: dict[str, Any]) -> None:
        """Nothing is carried from window to window."""

    def state(self) -> dict[str, Any]:
        """Return nothing: see :meth:`start`."""
        return {}

    def items(self, rows: list[dict[str, Any]], first_row: int) -> list[StreamedClip]:
        """Return the rows that can be used.

        Raises:
            DataError: Too many of them are bad, or a unit is not in the vocabulary and that is to be refused.
        """
        left_out, clips = LeftOut(), []
        for number, row in enumerate(rows, first_row):
            name, found = f"row {number}", self._clip(row, f"row {number}")
            if isinstance(found, StreamedClip):
                clips.append(found)
            else:
                left_out.add(found[0], name, found[1])
        report(self._rows.name, left_out, len(rows), self._task.data.max_bad, warn=first_row == 1)
        if not clips and first_row == 1:  # else an epoch without clips would be read for ever
            raise DataError(none_left(self._rows.name, left_out, len(rows)))
        return clips

    def collate(self, items: list[tuple[int, int, Any]], pad_to: int = 0) -> Batch:
        """Decode clips and join them to a batch."""
        clips: list[StreamedClip] = [clip for _, _, clip in items]
        lengths = [clip.num_samples for clip in clips]
        split = Clips(
            recordings=[UndecodedRecordings([clip.audio for clip in clips], lengths, self._limits.rate)],
            places_N2=np.stack([np.zeros(len(clips), np.int64), np.arange(len(clips))], axis=1),
            num_samples_N=np.asarray(lengths, dtype=np.int64),
            labels=np.fromiter(chain.from_iterable(clip.labels for clip in clips), np.int32),
            bounds=np.cumsum([0, *(len(clip.labels) for clip in clips)], dtype=np.int64),
            groups_N=np.full(len(clips), -1, np.int64),
            names=[clip.name for clip in clips],
            keys_N=np.asarray([number for _, number, _ in items], dtype=np.int64),
        )
        collator = Collator(split, self._inputs, self._masks, at_use=False, max_bad=1.0)
        epochs_B = np.asarray([epoch for epoch, _, _ in items], dtype=np.int64)
        return collator.batch(np.arange(len(clips)), epochs_B, np.ones(len(clips), np.float32), pad_to)

    def _clip(self, row: dict[str, Any], name: str) -> StreamedClip | Unfit:
        audio, text = audio_of(row[self.columns[0]]), row[self.columns[1]]
        if audio is None or not isinstance(text, str):
            return "bad", f"column {self.columns[audio is not None]!r} holds nothing usable"
        try:
            num_samples = read_header(audio).resampled(self._limits.rate)
        except BadAudio as error:
            return "bad", str(error)
        units = self._limits.units(text)
        if unfit := self._limits.unfit(num_samples, units):
            return unfit
        lacking = next((unit for unit in units if self._vocabulary.lacks(unit)), None)
        if lacking is not None and self._task.transcripts.unknown == "refuse":
            raise DataError(
                f"{self._rows.name}: {name} holds {lacking!r}, which is not in the vocabulary; correct it, or set "
                f"task.transcripts.unknown: replace"
            )
        return StreamedClip(name, audio, num_samples, self._vocabulary.encode(units))


class SpeechStream(StreamedBatches):
    """Batches of a stream of clips.

    Args:
        rows: The train split.
        stage: Turns rows into batches.
        layout: How a global batch is cut.
        seed: Of the shuffling.
        same_length: Pad all micro-batches of a step to its longest clip; see ``speech.batches.collator``.
        sort: Let a micro-batch hold clips of about the same length.
    """

    def __init__(
        self, rows: AudioRows, stage: SpeechStage, layout: Layout, seed: int, *, same_length: bool, sort: bool
    ) -> None:
        super().__init__(rows, stage, layout, seed)
        self._stage = stage
        self._same_length = same_length
        self._sort = sort

    def at(self, step: int) -> list[Batch]:
        """Return this rank's micro-batches of a step (0-based).

        Raises:
            DataError: The split cannot be read or holds nothing to learn from.
        """
        self._seek(step)
        items = self._items.take(self._layout.batch_size, keep=range(self._layout.batch_size))
        self._next_step += 1
        if self._sort:
            items.sort(key=lambda item: item[2].num_samples)
        pad_to = max(item[2].num_samples for item in items) if self._same_length else 0
        cuts = self._layout.micro_batches(0)
        return [self._stage.collate(items[places.start : places.stop], pad_to) for places in cuts]


def speech_stream(
    spec: JobSpec,
    task: CTC,
    inputs: SpeechInput,
    vocabulary: Vocabulary,
    masks: SpecAugmentMasks | None,
    min_frames: int,
    ranks: Ranks,
) -> tuple[SpeechStream, str]:
    """Return the training batches of a hub data set that is read as a stream, and a digest of it.

    Raises:
        DataError: The hub cannot be read, or the columns are not there.
    """
    source, data, where = task.data.train[0], task.data, "task.data.train[0]"
    rows = hub_rows(source, where, streaming=True)
    units = to_units(task.transcripts, source.language)
    limits = Limits(inputs.sampling_rate, inputs.frames, data.min_s, data.max_s, min_frames, units)
    stage = SpeechStage(rows, task, inputs, vocabulary, limits, masks)
    layout = Layout(spec.train.batch_size, spec.accumulation_steps, ranks.rank, ranks.world_size)
    stream = SpeechStream(
        rows, stage, layout, spec.train.seed, same_length=not inputs.sees_padding, sort=data.group_by_length
    )
    return stream, f"{rows.listing()} {stage.columns} {data.min_s} {data.max_s}"


def check_streamable(spec: JobSpec, task: CTC) -> None:
    """Refuse what a stream cannot know.

    Raises:
        DataError: Vocabulary, minutes or batches by seconds ask for all clips at once.
    """
    asked = {
        "several train sources": len(task.data.train) > 1,
        "transcripts.vocabulary: train (name a vocab.json, or use model)": task.transcripts.vocabulary == "train",
        "data.minutes": task.data.minutes is not None,
        "train.batch_seconds (use batch_size)": spec.train.batch_seconds is not None,
    }
    if wrong := [name for name, is_asked in asked.items() if is_asked]:
        raise DataError(
            f"task.data.streaming reads hub data sets row by row, which cannot serve {'; '.join(wrong)}. Change that, "
            f"or drop streaming (the data set is then downloaded and decoded once)"
        )
