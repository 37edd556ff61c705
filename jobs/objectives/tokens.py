"""Masked language modelling: rows are tokens, classes the vocabulary."""

import torch
from torch import nn
from transformers import PreTrainedModel

from prunus.jobs.errors import ModelError
from prunus.jobs.objectives.base import Batch, Computed, Objective, Weights
from prunus.jobs.objectives.distillation import HiddenMatch, States
from prunus.jobs.objectives.projection_loss import IGNORED, Mix, Projection, projection_loss


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

    def run(self, inputs: Batch, *, all_states: bool) -> tuple[torch.Tensor, States]:
        """Input of the last layer (B, L, H); and, if asked for, what each encoder layer says."""
        found = self.model(**inputs, output_hidden_states=all_states)
        hidden: torch.Tensor = found.logits
        if hidden.shape[-1] != self.layer.in_features:
            raise ModelError(
                f"{type(self.model).__name__} does something after its output layer; masked_lm cannot use it"
            )
        return hidden, found.hidden_states if all_states else ()

    @property
    def projection(self) -> Projection:
        return Projection(self.layer.weight, self.layer.bias)

    def close(self) -> None:
        """Put the layer back (before the model is used or saved by others)."""
        self.layer.forward = self._forward  # type: ignore[method-assign]


class TokenObjective(Objective):
    """Masked language modelling: rows are tokens, classes the vocabulary."""

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        weights: Weights,
        autocast: bool,
        hidden: HiddenMatch | None = None,
    ) -> None:
        super().__init__(student, teacher, weights, autocast, hidden)
        self._student_open = _Open(student)
        self._teacher_open = _Open(teacher) if teacher is not None else None

    def distilled_rows(self, batch: Batch) -> torch.Tensor:
        return batch["labels"] != IGNORED if self.weights.predicted_only else batch["attention_mask"].bool()

    def compute(self, inputs: Batch, labels: torch.Tensor, mix: Mix) -> Computed:
        distils = self._teacher_open is not None and mix.teacher_scale > 0.0
        predicted_S = (labels != IGNORED).view(-1)
        distilled_S = self.distilled_rows({**inputs, "labels": labels}).view(-1) if distils else None
        used_S = predicted_S if distilled_S is None else predicted_S | distilled_S
        rows = used_S.nonzero().view(-1)
        hidden_BLH, states = self._student_open.run(inputs, all_states=self._matches)
        hidden_SH = self._low(hidden_BLH.flatten(0, 1)[rows])
        teacher_hidden_SK, teacher = None, None
        teacher_states: States = ()
        if (distils or self._matches) and self._teacher_open is not None:
            with torch.no_grad():
                said_BLK, teacher_states = self._teacher_open.run(inputs, all_states=self._matches)
        if distils and self._teacher_open is not None:
            teacher_hidden_SK = self._low(said_BLK.flatten(0, 1)[rows])
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
        matched = None
        if self.hidden is not None and self._matches:
            matched = self.hidden(states, teacher_states, inputs["attention_mask"])
        return Computed(loss, sums if self._has_teacher_term else sums[:1], None, matched)

    def _low(self, hidden_SH: torch.Tensor) -> torch.Tensor:
        """In bf16 under autocast, whose LayerNorm gives fp32 on GPUs: the projection is the largest product of all."""
        return hidden_SH.to(torch.bfloat16) if self._autocast else hidden_SH

    def close(self) -> None:
        self._student_open.close()
