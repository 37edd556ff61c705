"""What the loop asks of a task."""

from abc import ABC, abstractmethod
from typing import Any

import torch

from jobs.data import EvalBatches
from jobs.engine import Engine
from jobs.objective import Objective
from jobs.ranks import Ranks


class Task(ABC):
    """A head, a loss and metrics.

    Args:
        labels: Class names in order; () where the task has none.
    """

    auto_class: Any
    """``AutoModelFor...`` of transformers."""
    objective_class: type[Objective]

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels

    def model_overrides(self) -> dict[str, Any]:
        """Configuration that the task imposes on the model."""
        return {}

    @abstractmethod
    def evaluate(self, engine: Engine, batches: EvalBatches, ranks: Ranks) -> dict[str, float]:
        """Measure the held-out split over all ranks (collective); the same answer on every rank."""


def to_device(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Move a batch."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
