"""What is differentiated: student and losses as one module, so that DDP and ZeRO-3 see every use of a weight in it.

A loss is a list of named terms. Of each the objective gives the sum over its rows (tokens, sequences, units) in a
micro-batch; the loop divides by the rows of the whole step, over all ranks and micro-batches:

    loss = sum over terms of weight x sum / rows          curves: loss/<name> = sum / rows, loss/total

The teacher is no submodule: it is neither wrapped, sharded, broadcast, saved nor counted. T is the number of terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from prunus.jobs.objectives.distillation import HiddenMatch
from prunus.jobs.objectives.projection_loss import IGNORED, Mix

Batch = dict[str, torch.Tensor]
Result = tuple[torch.Tensor, torch.Tensor, Any]
"""The scaled loss, the unscaled sums of its terms (T,), and what evaluation needs."""


@dataclass(frozen=True)
class Computed:
    """What a task's pass gives.

    Attributes:
        loss: The task's term and the teacher's, scaled and added.
        sums: Their unscaled sums: (1,), or (2,) with a term of the teacher's logits.
        extra: What evaluation needs.
        matched: The unscaled sum of the hidden term; None where it was not asked for.
    """

    loss: torch.Tensor
    sums: torch.Tensor
    extra: Any = None
    matched: torch.Tensor | None = None


@dataclass(frozen=True)
class Term:
    """A named part of the loss.

    Attributes:
        name: Of its curve, ``loss/<name>``.
        weight: Factor of its mean over rows in the loss.
    """

    name: str
    weight: float


@dataclass(frozen=True)
class Weights:
    """How task and teacher's logits are mixed, as in ``configs.specs.distillation``; without a teacher (1, 0)."""

    task: float
    teacher: float
    temperature: float
    predicted_only: bool
    chunk_rows: int


class Objective(nn.Module):
    """Student plus losses.

    Args:
        student: The model that is trained.
        teacher: Its teacher, frozen and in evaluation mode.
        weights: How the terms are mixed.
        autocast: Whether the forward pass runs in bf16 over fp32 weights.
        hidden: Matches the hidden states of student and teacher; needs a teacher.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        weights: Weights,
        autocast: bool,
        hidden: HiddenMatch | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.weights = weights
        self.step = 0
        """Optimizer steps done; set by the loop."""
        self.hidden = hidden
        self._autocast = autocast
        self._teacher = [teacher]  # a list, so that it is no submodule
        self._has_teacher_term = teacher is not None and weights.teacher > 0.0

    @property
    def teacher(self) -> PreTrainedModel | None:
        """The frozen teacher, if there is one."""
        return self._teacher[0]

    @property
    def terms(self) -> tuple[Term, ...]:
        """Parts of the loss, in the order of all sums, rows and scales. The first is the task's."""
        found = [Term("task", self.weights.task)]
        if self._has_teacher_term:
            found.append(Term("teacher", self.weights.teacher))
        if self.hidden is not None:
            found.append(Term("hidden", self.hidden.weight))
        return tuple(found)

    @property
    def only_task(self) -> tuple[float, ...]:
        """Scales of an evaluation: the task's sum as it is, nothing asked of a teacher."""
        return (1.0, *(0.0 for _ in self.terms[1:]))

    def forward(self, batch: Batch, scales: Sequence[float]) -> Result:
        """Compute the loss of a micro-batch.

        Args:
            scales: Of each term the factor of its sum, beside its weight; 0: it is left out.
        """
        inputs = {name: value for name, value in batch.items() if name not in {"labels", "weight"}}
        device = batch["labels"].device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self._autocast):
            found = self.compute(inputs, batch["labels"], self._mix(scales))
        if self.hidden is None:
            return found.loss, found.sums, found.extra
        matched = found.sums.new_zeros(()) if found.matched is None else found.matched
        sums = torch.cat([found.sums, matched.detach().view(1)])
        return found.loss + self.hidden.weight * scales[-1] * matched, sums, found.extra

    def _mix(self, scales: Sequence[float]) -> Mix:
        teacher_scale = self.weights.teacher * scales[1] if self._has_teacher_term else 0.0
        return Mix(self.weights.task * scales[0], teacher_scale, self.weights.temperature, self.weights.chunk_rows)

    @property
    def _matches(self) -> bool:
        """Whether hidden states are compared in this pass: in training."""
        return self.hidden is not None and self.training

    def counts(self, batch: Batch) -> torch.Tensor:
        """Rows that count for each term of a micro-batch; float64 (T,)."""
        rows = [(batch["labels"] != IGNORED).sum()]
        if self._has_teacher_term:
            rows.append(self.distilled_rows(batch).sum())
        if self.hidden is not None:
            rows.append(batch["attention_mask"].sum())
        return torch.stack(rows).to(torch.float64)

    def distilled_rows(self, batch: Batch) -> torch.Tensor:
        """Bool, shaped like the labels: rows that count for distillation of logits."""
        return batch["labels"] != IGNORED

    def compute(self, inputs: Batch, labels: torch.Tensor, mix: Mix) -> Computed:
        """The task's term and the teacher's, if there is one; of objectives that leave ``forward`` as it is."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave the student as it was given."""
