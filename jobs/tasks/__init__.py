"""What is learned: the model class with its head, the objective, and the metrics of a held-out split."""

from prunus.jobs.tasks.base import Task
from prunus.jobs.tasks.classification import ClassificationTask
from prunus.jobs.tasks.ctc import CTCTask
from prunus.jobs.tasks.masked_lm import MaskedLMTask
from prunus.jobs.tasks.wav2vec2_pretraining import PretrainingTask

TASKS: dict[str, type[Task]] = {
    "masked_lm": MaskedLMTask,
    "classification": ClassificationTask,
    "ctc": CTCTask,
    "wav2vec2_pretraining": PretrainingTask,
}
"""Task name -> class. Explicit: no scanning."""

__all__ = ["TASKS", "Task"]
