"""What is learned, and from which data."""

from typing import Annotated

from pydantic import Field

from prunus.configs.tasks.classification import Classification
from prunus.configs.tasks.ctc import CTC
from prunus.configs.tasks.masked_lm import MaskedLM
from prunus.configs.tasks.wav2vec2_pretraining import Wav2Vec2Pretraining

TaskSpec = Annotated[MaskedLM | Classification | CTC | Wav2Vec2Pretraining, Field(discriminator="name")]
