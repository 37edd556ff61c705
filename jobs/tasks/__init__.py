"""What is learned: the model class with its head, the objective, and the metrics of a held-out split."""

from jobs.tasks.base import Task
from jobs.tasks.classification import ClassificationTask
from jobs.tasks.ctc import CTCTask
from jobs.tasks.masked_lm import MaskedLMTask
from jobs.tasks.pretraining import PretrainingTask

TASKS: dict[str, type[Task]] = {
    "masked_lm": MaskedLMTask,
    "classification": ClassificationTask,
    "ctc": CTCTask,
    "wav2vec2_pretraining": PretrainingTask,
}
"""Task name -> class. Explicit: no scanning."""

__all__ = ["TASKS", "Task"]
