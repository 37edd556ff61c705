"""Recorded speech: where the clips are, which are used, what becomes of their transcripts; SpecAugment."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from prunus.configs.tasks.data_source import DataSource
from prunus.configs.values.base import Fraction, Strict
from prunus.configs.values.languages import primary_code


class SpeechSource(DataSource):
    """Clips of one language, or unlabelled ones. ``files`` are

    - Common Voice: ``train.tsv`` with columns path and sentence, clips in ``clips/`` beside it;
    - LibriSpeech or MLS: a directory with ``*.trans.txt`` below it, or with ``transcripts.txt`` and ``audio/``;
    - a manifest: csv or jsonl with columns of any name, paths relative to it;
    - directories or audio files without transcripts (tasks that need none).
    """

    layout: Literal["auto", "common_voice", "librispeech", "mls", "manifest", "audio"] = "auto"
    """How the files are to be read; ``auto`` looks at them."""
    language: str = ""
    """BCP-47 or ISO 639 code (``es``, ``sv-SE``, ``zh-TW``): rules for its text, and a line of its own in the
    evaluation where there are several. Empty: rules that hold for every script."""
    name: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")
    """Its line in the evaluation (``eval/wer/NAME``), where two sources have one language: test-clean and test-other.
    Empty: the language."""
    audio_column: str | None = None
    """Column of the clips; None: what the layout has (``path``, ``audio_filepath``, ``audio``, ``file``)."""
    text_column: str | None = None
    """Column of the transcripts; None: what the layout has (``sentence``, ``text``, ``transcript``)."""
    clips: str | None = None
    """Directory of the clips, where the layout's own place is another one."""

    @field_validator("language")
    @classmethod
    def _known(cls, value: str) -> str:
        primary_code(value)
        return value


def _one_or_several(value: Any) -> Any:
    return (value,) if isinstance(value, dict | SpeechSource) else value


SpeechSources = Annotated[tuple[SpeechSource, ...], Field(min_length=1), BeforeValidator(_one_or_several)]
"""One source, or a list of them that are joined: several languages, one vocabulary."""


class SpeechData(Strict):
    """Clips, decoded and resampled once, cached by content hash; corrupt ones are skipped, counted and named."""

    train: SpeechSources
    """Clips to train on: one source, or a list of sources that are joined."""
    eval: SpeechSources | None = None
    """Held-out clips; without them no evaluation runs."""
    minutes: float | None = Field(default=None, gt=0.0)
    """Train on a random part of so many minutes, of each source (10, 60 and 600 in the PARP paper); None: all."""
    subset_seed: int = Field(default=0, ge=0, lt=2**31)
    """Which part: another seed, other clips."""
    min_s: float = Field(default=0.25, ge=0.05)
    """Shorter clips are left out, and counted."""
    max_s: float = Field(default=20.0, gt=0.0)
    """Longer clips are left out of the train split, and counted; in evaluation all are used."""
    max_bad: Fraction = 0.01
    """Share of the clips that may be corrupt, empty or without a transcript; one more and the job is refused, with
    their names."""
    max_eval_clips: int | None = Field(default=None, ge=1)
    """Evaluate on the first so many clips of each source; None for all."""
    streaming: bool = False
    """Decode clips where they are used, for data that do not fit the disk twice: slower, nothing but the list of the
    clips is cached. With ``hub``: rows are read as a stream, and ``train.num_steps`` is needed."""
    group_by_length: bool = True
    """Batches of clips of about the same length: less padding, the same clips per epoch."""

    @property
    def sources(self) -> dict[str, DataSource]:
        """Place in ``task.data`` -> source."""
        splits = {"train": self.train, "eval": self.eval or ()}
        return {f"{name}[{i}]": source for name, split in splits.items() for i, source in enumerate(split)}

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        if self.max_s <= self.min_s:
            raise ValueError(f"max_s {self.max_s} is not above min_s {self.min_s}: no clip would be left")
        return self


class TranscriptRules(Strict):
    """From a transcript to the units that are learned."""

    units: Literal["characters", "phones"] = "characters"
    """``characters``: letters, with ``|`` between words. ``phones``: the transcript is already split by spaces."""
    lowercase: bool = True
    """By the rules of the source's language (Turkish and Tatar have their own i)."""
    keep: str = "'"
    """Signs that are kept though they are no letters, marks or digits; all others become spaces."""
    vocabulary: str = "train"
    """``train``: sorted units of the train transcripts. ``model``: those that the starting checkpoint was trained with
    (its head is kept). Or a ``vocab.json``: unit -> number."""
    unknown: Literal["refuse", "replace"] = "replace"
    """A unit outside the vocabulary, in training or evaluation: refuse the job, or take it as ``<unk>`` (an error in
    any case)."""


class SpecAugment(Strict):
    """Masks over the encoder's input frames and channels while training (arXiv 1904.08779; wav2vec 2.0, appendix B).

    Drawn from (train.seed, epoch, clip): the same on any number of ranks, and after a resume.
    """

    time_prob: Fraction = 0.75
    """Share of the frames that would be masked if no spans overlapped. PARP: 0.75 (10 min, 1 h), 0.65 (10 h)."""
    time_length: int = Field(default=10, ge=1)
    """Frames (20 ms each) of a span."""
    channel_prob: Fraction = 0.25
    """The same for channels. PARP: 0.256, for 10 min 0.512."""
    channel_length: int = Field(default=64, ge=1)
    """Channels of a span."""
