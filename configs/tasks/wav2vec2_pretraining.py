"""Pre-training of wav2vec 2.0 (arXiv 2006.11477)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from prunus.configs.tasks.speech_data import SpeechData
from prunus.configs.values.base import Strict


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
    """Selects this task."""
    data: SpeechData
    """Clips; transcripts are ignored."""
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
    """Temperature of the quantiser over the steps."""

    @model_validator(mode="after")
    def _all_clips_are_known(self) -> Self:
        if self.data.streaming and any(source.hub for source in self.data.train):
            raise ValueError(
                "data.streaming reads hub data sets as a stream for task ctc alone; drop it (the data set is then "
                "downloaded and decoded once), or give files"
            )
        return self
