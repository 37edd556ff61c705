"""What is learned, and from which data."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from prunus.configs.tasks.data_source import DataSource
from prunus.configs.tasks.speech_data import SpecAugment, SpeechData, TranscriptRules
from prunus.configs.values.base import Strict


class MaskedLMData(Strict):
    """Text for masked language modelling, tokenised and packed once, cached by content hash."""

    train: DataSource
    eval: DataSource | None = None
    """Held-out text for ``eval/loss``; without it no evaluation runs."""
    text_column: str = "text"
    sequence_length: int = Field(default=128, ge=8)
    """Tokens per packed sequence, special tokens included. Paper: 512."""
    streaming: bool = False
    """Read as a stream (data larger than disk): needs ``train.num_steps``, is not cached."""
    max_eval_sequences: int | None = Field(default=None, ge=1)
    """Evaluate on the first so many packed sequences; None for all."""

    @property
    def sources(self) -> dict[str, DataSource]:
        """Place in ``task.data`` -> source."""
        return {"train": self.train, **({"eval": self.eval} if self.eval else {})}


class MaskedLM(Strict):
    """Masked language modelling (BERT, arXiv 1810.04805 section 3.1): 80% [MASK], 10% random, 10% unchanged."""

    name: Literal["masked_lm"] = "masked_lm"
    data: MaskedLMData
    mask_probability: float = Field(default=0.15, gt=0.0, le=1.0)
    """Share of the tokens to predict, in (0, 1]: with none there is no loss. Paper: 0.15."""


class ClassificationData(Strict):
    """Labelled sentences, or pairs of sentences."""

    train: DataSource
    eval: DataSource
    text_column: str = "text"
    pair_column: str | None = None
    """Second sentence (MNLI, QQP, ...); None for single sentences."""
    label_column: str = "label"
    sequence_length: int = Field(default=128, ge=8)
    """Longer inputs are cut to so many tokens."""
    group_by_length: bool = False
    """Batches of rows of about the same length: less padding, the same rows per epoch. Not with ``streaming``."""
    streaming: bool = False
    """Read as a stream: needs ``train.num_steps`` and ``task.labels``; rows of the split are not counted."""

    @property
    def sources(self) -> dict[str, DataSource]:
        """Place in ``task.data`` -> source."""
        return {"train": self.train, "eval": self.eval}

    @model_validator(mode="after")
    def _lengths_are_known(self) -> Self:
        if self.group_by_length and self.streaming:
            raise ValueError("group_by_length needs the lengths of all rows, which a stream does not know; drop one")
        return self


class Classification(Strict):
    """Sequence classification; accuracy and macro F1 on the eval split."""

    name: Literal["classification"] = "classification"
    data: ClassificationData
    labels: tuple[str, ...] = ()
    """Names of the classes in order; empty: the sorted values found in the train split."""

    @model_validator(mode="after")
    def _different_labels(self) -> Self:
        twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
        if twice:
            raise ValueError(f"labels names a class twice: {', '.join(twice)}; name each once")
        return self


class CTC(Strict):
    """Speech recognition by connectionist temporal classification (Graves 2006) for models of the wav2vec 2.0 family.

    Error rates of the held-out clips by greedy decoding: ``eval/cer`` and ``eval/wer``, or ``eval/per`` of phones.
    """

    name: Literal["ctc"] = "ctc"
    data: SpeechData
    transcripts: TranscriptRules = TranscriptRules()
    spec_augment: SpecAugment | None = SpecAugment()
    """null: none."""
    freeze_feature_encoder: bool = True
    """The convolutional feature encoder is never trained (PARP, wav2vec 2.0)."""
    freeze_updates: int = Field(default=0, ge=0)
    """For so many optimizer steps only the head learns. wav2vec 2.0 and PARP's dense baselines: 10,000; PARP: 0."""
    average: Literal["units", "clips"] = "units"
    """The loss is a mean over the target units of a step (fairseq's default), or over its clips (PARP's scripts)."""


class GumbelTemperature(Strict):
    """Temperature of the quantiser's Gumbel softmax: ``max(min, max * decay ** step)`` of optimizer steps done."""

    max: float = Field(default=2.0, gt=0.0)
    """At the start. Paper: 2."""
    min: float = Field(default=0.5, gt=0.0)
    """Never below. Paper: 0.5 (base), 0.1 (large)."""
    decay: float = Field(default=0.999995, gt=0.0, le=1.0)
    """Factor per optimizer step; 0.5 is reached after 277,000 steps, so shorter jobs want a smaller one. Paper:
    0.999995."""

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}; the temperature falls: swap the two")
        return self


class Wav2Vec2Pretraining(Strict):
    """Self-supervised pre-training of wav2vec 2.0 (Baevski et al., arXiv 2006.11477, section 3): find the true
    quantised frame behind each masked one, among others of the same clip.

    Transcripts are neither needed nor looked at. Held-out clips give ``eval/contrastive``, ``eval/accuracy`` and
    ``eval/perplexity_codes``.
    """

    name: Literal["wav2vec2_pretraining"] = "wav2vec2_pretraining"
    data: SpeechData
    time_prob: float = Field(default=0.65, gt=0.0, le=1.0)
    """Share of the frames that would be masked if no spans overlapped, in (0, 1]: with none there is no loss. Paper:
    0.65, which masks 49% of a long clip."""
    time_length: int = Field(default=10, ge=1)
    """Frames (20 ms each) of a span. Paper: 10. Shorter clips teach nothing."""
    num_negatives: int = Field(default=100, ge=1)
    """False frames beside each true one, drawn with replacement from the clip's other masked frames. Paper: 100."""
    contrastive_temperature: float = Field(default=0.1, gt=0.0)
    """Divides the cosine similarities. Paper: 0.1."""
    diversity_weight: float = Field(default=0.1, ge=0.0)
    """Weight of the term that asks for equal use of all codes. Paper: 0.1."""
    gumbel: GumbelTemperature = GumbelTemperature()

    @model_validator(mode="after")
    def _all_clips_are_known(self) -> Self:
        if self.data.streaming and any(source.hub for source in self.data.train):
            raise ValueError(
                "data.streaming reads hub data sets as a stream for task ctc alone; drop it (the data set is then "
                "downloaded and decoded once), or give files"
            )
        return self


TaskSpec = Annotated[MaskedLM | Classification | CTC | Wav2Vec2Pretraining, Field(discriminator="name")]
