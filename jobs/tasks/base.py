"""What the loop asks of a task."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from transformers import PreTrainedModel

from prunus.jobs.data.pipeline.batches import EvalBatches, TaskData
from prunus.jobs.engine.engine import Engine
from prunus.jobs.objectives.base import Objective, Weights
from prunus.jobs.objectives.distillation import HiddenMatch
from prunus.jobs.ranks import Ranks


class Task(ABC):
    """A head, a loss and metrics.

    Args:
        spec: The task's part of the job.
        data: Its data: labels in order (classes, or units of speech), names of the eval split's parts.
    """

    auto_class: Any
    """``AutoModelFor...`` of transformers."""
    objective_class: type[Objective]

    def __init__(self, spec: Any, data: TaskData) -> None:
        self.spec = spec
        self.labels = data.labels
        self.eval_groups = data.eval_groups
        self.throughput = ("throughput/tokens_per_s", 1.0)
        """Name of the curve, and its unit in attended positions of a batch."""

    def model_overrides(self) -> dict[str, Any]:
        """Configuration that the task imposes on the model."""
        return {}

    def prepare(self, student: PreTrainedModel) -> None:  # noqa: B027 - most tasks train all
        """Freeze what this task does not train; called before the engine takes the model."""

    def build_objective(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        weights: Weights,
        autocast: bool,
        hidden: HiddenMatch | None = None,
    ) -> Objective:
        """Student and losses as one module."""
        return self.objective_class(student, teacher, weights, autocast, hidden)

    def warning(self, metrics: dict[str, float]) -> str:
        """What a user should be told of the final metrics, beside that the job succeeded; "" for nothing."""
        del metrics
        return ""

    @abstractmethod
    def evaluate(self, engine: Engine, batches: EvalBatches, ranks: Ranks) -> dict[str, float]:
        """Measure the held-out split over all ranks (collective); the same answer on every rank."""


def heard_per_second(processor: Any) -> tuple[str, float]:
    """Throughput of a speech task: seconds of audio per second, from a feature extractor alone or in a processor."""
    extractor = getattr(processor, "feature_extractor", processor)
    return "throughput/audio_s_per_s", 1.0 / extractor.sampling_rate


def to_device(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Move a batch."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
