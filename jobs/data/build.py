"""One function from a spec to the data of a job."""

from pathlib import Path
from typing import TypeAlias

from transformers import PreTrainedTokenizerBase

from prunus.configs import JobSpec
from prunus.jobs.data.pipeline.batches import TaskData
from prunus.jobs.data.speech.ctc import ctc_data
from prunus.jobs.data.speech.speech_input import SpeechInput
from prunus.jobs.data.speech.wav2vec2_pretraining import pretraining_data
from prunus.jobs.data.text.classification import classification_data
from prunus.jobs.data.text.masked_lm import masked_lm_data
from prunus.jobs.ranks import Ranks

Inputs: TypeAlias = PreTrainedTokenizerBase | SpeechInput
"""What the starting checkpoint says of its inputs."""


def build_data(spec: JobSpec, inputs: Inputs, cache_dir: Path, ranks: Ranks) -> TaskData:
    """Prepare the data of a job, once for all ranks; call it on every rank.

    Raises:
        prunus.jobs.errors.DataError: A file, column, label or split is missing, empty or of the wrong form.
        prunus.jobs.errors.StorageError: The cache cannot be written.
    """
    if isinstance(inputs, SpeechInput):
        hear = ctc_data if spec.task.name == "ctc" else pretraining_data
        return hear(spec, inputs, cache_dir, ranks)
    build = masked_lm_data if spec.task.name == "masked_lm" else classification_data
    return build(spec, inputs, cache_dir, ranks)
