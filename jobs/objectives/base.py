"""What is differentiated: student and loss as one module, so that DDP and ZeRO-3 see every use of a weight in it.

The teacher is no submodule: it is neither wrapped, sharded, broadcast, saved nor counted.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from prunus.jobs.objectives.projection_loss import IGNORED, Mix

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Weights:
    """The mixture of the two losses, as in ``configs.specs.job.Distillation``; without a teacher (1, 0)."""

    task: float
    teacher: float
    temperature: float
    predicted_only: bool
    chunk_rows: int


class Objective(nn.Module):
    """Student plus loss; ``forward`` gives the scaled loss, unscaled sums (task, teacher) and what evaluation needs."""

    def __init__(
        self, student: PreTrainedModel, teacher: PreTrainedModel | None, weights: Weights, autocast: bool
    ) -> None:
        super().__init__()
        self.student = student
        self.weights = weights
        self.step = 0
        """Optimizer steps done; set by the loop."""
        self._autocast = autocast
        self._teacher = [teacher]  # a list, so that it is no submodule

    @property
    def teacher(self) -> PreTrainedModel | None:
        """The frozen teacher, if there is one."""
        return self._teacher[0]

    def forward(self, batch: Batch, task_scale: float, teacher_scale: float) -> tuple[torch.Tensor, torch.Tensor, Any]:
        inputs = {name: value for name, value in batch.items() if name not in {"labels", "weight"}}
        mix = Mix(
            self.weights.task * task_scale,
            self.weights.teacher * teacher_scale,
            self.weights.temperature,
            self.weights.chunk_rows,
        )
        device = batch["labels"].device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self._autocast):
            return self.compute(inputs, batch["labels"], mix)

    def counts(self, batch: Batch) -> torch.Tensor:
        """Rows that count for the (task, teacher) terms of a micro-batch; float64 (2,)."""
        rows = torch.stack([(batch["labels"] != IGNORED).sum(), self.distilled_rows(batch).sum()])
        return rows.to(torch.float64)

    def distilled_rows(self, batch: Batch) -> torch.Tensor:
        """Bool, shaped like the labels: rows that count for distillation."""
        return batch["labels"] != IGNORED

    def compute(self, inputs: Batch, labels: torch.Tensor, mix: Mix) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """The task's part; see the subclasses."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave the student as it was given."""
