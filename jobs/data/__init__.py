"""Data of a job: found, tokenised, cached and cut into each rank's batches. Knows no model and no loop.

The way of a text: ``sources`` (rows) -> ``packing`` or ``classification`` (tokens) -> ``cache`` (disk) -> ``order``
(which sequence at which step) -> ``masking`` or padding -> ``batches`` (what the loop gets). That of a clip is drawn in
``speech``.
"""

from pathlib import Path
from typing import TypeAlias

from transformers import PreTrainedTokenizerBase

from configs import JobSpec
from jobs.data.batches import Batch, EvalBatches, Processor, StepBatches, TaskData
from jobs.data.classification import classification_data
from jobs.data.masked_lm import masked_lm_data
from jobs.data.speech.input import SpeechInput
from jobs.data.speech.pretraining import pretraining_data
from jobs.data.speech.recognition import ctc_data
from jobs.ranks import Ranks

Inputs: TypeAlias = PreTrainedTokenizerBase | SpeechInput
"""What the starting checkpoint says of its inputs."""

__all__ = ["Batch", "EvalBatches", "Inputs", "Processor", "SpeechInput", "StepBatches", "TaskData", "build_data"]


def build_data(spec: JobSpec, inputs: Inputs, cache_dir: Path, ranks: Ranks) -> TaskData:
    """Prepare the data of a job, once for all ranks; call it on every rank.

    Raises:
        jobs.errors.DataError: A file, column, label or split is missing, empty or of the wrong form.
        jobs.errors.StorageError: The cache cannot be written.
    """
    if isinstance(inputs, SpeechInput):
        hear = ctc_data if spec.task.name == "ctc" else pretraining_data
        return hear(spec, inputs, cache_dir, ranks)
    build = masked_lm_data if spec.task.name == "masked_lm" else classification_data
    return build(spec, inputs, cache_dir, ranks)
