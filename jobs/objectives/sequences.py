"""Classification: rows are sequences."""

import torch

from prunus.jobs.objectives.base import Batch, Computed, Objective
from prunus.jobs.objectives.projection_loss import Mix, whole_loss


class SequenceObjective(Objective):
    """Classification: rows are sequences; evaluation gets the logits."""

    def compute(self, inputs: Batch, labels: torch.Tensor, mix: Mix) -> Computed:
        said = self.student(**inputs, output_hidden_states=self._matches)
        taught = None
        if self.teacher is not None and (mix.teacher_scale > 0.0 or self._matches):
            with torch.no_grad():
                taught = self.teacher(**inputs, output_hidden_states=self._matches)
        teacher_logits_BC = taught.logits if taught is not None and mix.teacher_scale > 0.0 else None
        loss, sums = whole_loss(said.logits, labels, mix, teacher_logits_BC)
        matched = None
        if self.hidden is not None and taught is not None and self._matches:
            matched = self.hidden(said.hidden_states, taught.hidden_states, inputs["attention_mask"])
        return Computed(loss, sums if self._has_teacher_term else sums[:1], said.logits.detach(), matched)
