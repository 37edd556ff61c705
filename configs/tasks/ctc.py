"""Speech recognition with CTC."""

from typing import Literal

from pydantic import Field

from prunus.configs.tasks.speech_data import SpecAugment, SpeechData, TranscriptRules
from prunus.configs.values.base import Strict


class CTC(Strict):
    """Speech recognition by connectionist temporal classification (Graves 2006) for models of the wav2vec 2.0 family.

    Error rates of the held-out clips by greedy decoding: ``eval/cer`` and ``eval/wer``, or ``eval/per`` of phones.
    """

    name: Literal["ctc"] = "ctc"
    """Selects this task."""
    data: SpeechData
    """Clips with transcripts."""
    transcripts: TranscriptRules = TranscriptRules()
    """How transcripts become the units that are learned."""
    spec_augment: SpecAugment | None = SpecAugment()
    """null: none."""
    freeze_feature_encoder: bool = True
    """The convolutional feature encoder is never trained (PARP, wav2vec 2.0)."""
    freeze_updates: int = Field(default=0, ge=0)
    """For so many optimizer steps only the head learns. wav2vec 2.0 and PARP's dense baselines: 10,000; PARP: 0."""
    average: Literal["units", "clips"] = "units"
    """The loss is a mean over the target units of a step (fairseq's default), or over its clips (PARP's scripts)."""
