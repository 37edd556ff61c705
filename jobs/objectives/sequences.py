"""Classification: rows are sequences."""

from typing import Any

import torch

from prunus.jobs.objectives.base import Batch, Objective
from prunus.jobs.objectives.projection_loss import Mix, whole_loss


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
