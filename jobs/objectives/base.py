"""What is differentiated: student and loss as one module, so that DDP and ZeRO-3 see every use of a weight in it.

The teacher is no submodule: it is neither wrapped, sharded, broadcast, saved nor counted.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from prunus.jobs.errors import ModelError
from prunus.jobs.objectives.projection_loss import IGNORED, Mix, Projection, projection_loss, whole_loss

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Weights:
    """The mixture of the two losses, as in ``configs.specs.job.Distillation``; without a teacher (1, 0)."""

    task: float
    teacher: float
    temperature: float
    predicted_only: bool
    chunk_rows: int


class _Open:
    """Take a language model's last linear layer out of its forward: what it returns as logits is that layer's input."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.layer: nn.Linear = model.get_output_embeddings()
        if not isinstance(self.layer, nn.Linear):
            raise ModelError(
                f"{type(model).__name__} has no linear output layer over the vocabulary; masked_lm needs one"
            )
        self._forward = self.layer.forward
        self.layer.forward = lambda hidden: hidden  # type: ignore[method-assign, assignment]

    def hidden(self, inputs: Batch) -> torch.Tensor:
        """Input of the last layer, shape (B, L, H)."""
        hidden: torch.Tensor = self.model(**inputs).logits
        if hidden.shape[-1] != self.layer.in_features:
            raise ModelError(
                f"{type(self.model).__name__} does something after its output layer; masked_lm cannot use it"
            )
        return hidden

    @property
    def projection(self) -> Projection:
        return Projection(self.layer.weight, self.layer.bias)

    def close(self) -> None:
        """Put the layer back (before the model is used or saved by others)."""
        self.layer.forward = self._forward  # type: ignore[method-assign]


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


class TokenObjective(Objective):
    """Masked language modelling: rows are tokens, classes the vocabulary."""

    def __init__(
        self, student: PreTrainedModel, teacher: PreTrainedModel | None, weights: Weights, autocast: bool
    ) -> None:
        super().__init__(student, teacher, weights, autocast)
        self._student_open = _Open(student)
        self._teacher_open = _Open(teacher) if teacher is not None else None

    def distilled_rows(self, batch: Batch) -> torch.Tensor:
        return batch["labels"] != IGNORED if self.weights.predicted_only else batch["attention_mask"].bool()

    def compute(self, inputs: Batch, labels: torch.Tensor, mix: Mix) -> tuple[torch.Tensor, torch.Tensor, Any]:
        distils = self._teacher_open is not None and mix.teacher_scale > 0.0
        predicted_S = (labels != IGNORED).view(-1)
        distilled_S = self.distilled_rows({**inputs, "labels": labels}).view(-1) if distils else None
        used_S = predicted_S if distilled_S is None else predicted_S | distilled_S
        rows = used_S.nonzero().view(-1)
        hidden_SH = self._low(self._student_open.hidden(inputs).flatten(0, 1)[rows])
        teacher_hidden_SK, teacher = None, None
        if distils and self._teacher_open is not None:
            with torch.no_grad():
                teacher_hidden_SK = self._low(self._teacher_open.hidden(inputs).flatten(0, 1)[rows])
                teacher = self._teacher_open.projection
        with torch.autocast(labels.device.type, enabled=False):
            loss, sums = projection_loss(
                hidden_SH,
                self._student_open.projection,
                labels.view(-1)[rows],
                mix,
                teacher_hidden_SK,
                teacher,
                None if distilled_S is None else distilled_S[rows],
            )
        return loss, sums, None

    def _low(self, hidden_SH: torch.Tensor) -> torch.Tensor:
        """In bf16 under autocast, whose LayerNorm gives fp32 on GPUs: the projection is the largest product of all."""
        return hidden_SH.to(torch.bfloat16) if self._autocast else hidden_SH

    def close(self) -> None:
        self._student_open.close()


class SequenceObjective(Objective):
    """Classification: rows are sequences; evaluation gets the logits."""

    def compute(self, inputs: Batch, labels: torch.Tensor, mix: Mix) -> tuple[torch.Tensor, torch.Tensor, Any]:
        logits_BC = self.student(**inputs).logits
        teacher_logits_BC = None
        if self.teacher is not None and mix.teacher_scale > 0.0:
            with torch.no_grad():
                teacher_logits_BC = self.teacher(**inputs).logits
        loss, sums = whole_loss(logits_BC, labels, mix, teacher_logits_BC)
        return loss, sums, logits_BC.detach()
