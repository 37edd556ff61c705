"""Connectionist temporal classification (Graves et al., ICML 2006) over a wav2vec 2.0 encoder, and SpecAugment.

    loss = - sum over clips of log p(units | frames)          summed over all alignments by torch's ctc_loss, in fp32

The loop divides by the target units of the whole step, or by its clips. Letters: B clips, S samples, T frames,
U units of the longest transcript, V vocabulary, H hidden size.
The blank is the model's padding token.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from prunus.jobs.objectives.base import Batch, Objective, Result, Weights
from prunus.jobs.objectives.projection_loss import IGNORED


class CTCObjective(Objective):
    """Speech recognition; evaluation gets the best unit per frame (B, T) and the frames of each clip (B,).

    Args:
        average: Rows that the loss is a mean over: target ``units`` or ``clips``.
        freeze_updates: For so many optimizer steps only the head learns.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        weights: Weights,
        autocast: bool,
        average: Literal["units", "clips"],
        freeze_updates: int,
    ) -> None:
        super().__init__(student, None, weights, autocast)
        self._average = average
        self._freeze_updates = freeze_updates
        self._sees_padding = student.config.feat_extract_norm == "layer"
        self._time_mask_BT: torch.Tensor | None = None
        self._channel_mask_BH: torch.Tensor | None = None
        # transformers draws these masks from NumPy's global state: another draw on another number of ranks.
        student.base_model._mask_hidden_states = self._mask

    def forward(self, batch: Batch, scales: Sequence[float]) -> Result:
        device = batch["labels"].device.type
        self._time_mask_BT, self._channel_mask_BH = batch.get("time_mask"), batch.get("channel_mask")
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self._autocast):
            logits_BTV = self._logits(batch)
        frames_B = self.student._get_feat_extract_output_lengths(batch["attention_mask"].sum(1)).long()
        blank = self.student.config.pad_token_id
        nll = ctc_loss(logits_BTV, frames_B, batch["labels"], blank, batch.get("weight"))
        best_BT = None if self.training else logits_BTV.detach().argmax(2)
        return self.weights.task * scales[0] * nll, nll.detach().view(1), (best_BT, frames_B)

    def _logits(self, batch: Batch) -> torch.Tensor:
        student = self.student
        mask = batch["attention_mask"] if self._sees_padding else None
        values = batch["input_values"].to(next(student.lm_head.parameters()).dtype)
        hidden_BTH = student.base_model(values, attention_mask=mask).last_hidden_state
        if self.training and self.step < self._freeze_updates:
            # Gradients of exactly 0, not none: engines wait for one of every weight.
            hidden_BTH = hidden_BTH.detach() + 0.0 * hidden_BTH
        logits: torch.Tensor = student.lm_head(student.dropout(hidden_BTH))
        return logits

    def _mask(
        self, hidden_BTH: torch.Tensor, mask_time_indices: torch.Tensor | None = None, attention_mask: Any = None
    ) -> torch.Tensor:
        """SpecAugment as wav2vec 2.0 has it: masked frames become one learned vector, masked channels 0."""
        del mask_time_indices, attention_mask
        if self._time_mask_BT is not None:
            embed_H = self.student.base_model.masked_spec_embed.to(hidden_BTH.dtype)
            hidden_BTH = torch.where(self._time_mask_BT[:, :, None], embed_H, hidden_BTH)
        if self._channel_mask_BH is not None:
            hidden_BTH = hidden_BTH.masked_fill(self._channel_mask_BH[:, None, :], 0.0)
        return hidden_BTH

    def counts(self, batch: Batch) -> torch.Tensor:
        """Units, or clips, that count for the loss; float64 (1,)."""
        weight_B = _weight(batch["labels"], batch.get("weight"))
        units_B = (batch["labels"] != IGNORED).sum(1) if self._average == "units" else torch.ones_like(weight_B)
        return (weight_B * units_B).sum().double().view(1)


def ctc_loss(
    logits_BTV: torch.Tensor,
    frames_B: torch.Tensor,
    labels_BU: torch.Tensor,
    blank: int,
    weight_B: torch.Tensor | None = None,
) -> torch.Tensor:
    """Summed negative log-likelihood of the transcripts, nats; a clip too short for its units counts 0.

    Args:
        labels_BU: Units, ``IGNORED`` behind the last one.
        weight_B: 0 for rows that only fill up; None: all count.
    """
    log_probs_TBV = F.log_softmax(logits_BTV, dim=-1, dtype=torch.float32).transpose(0, 1)
    units_B = (labels_BU != IGNORED).sum(1)
    with torch.backends.cudnn.flags(enabled=False):  # cuDNN's is not deterministic, and takes fewer shapes
        nll_B = F.ctc_loss(
            log_probs_TBV,
            labels_BU.clamp(min=0),
            frames_B,
            units_B,
            blank=blank,
            reduction="none",
            zero_infinity=True,
        )
    return (nll_B * _weight(labels_BU, weight_B)).sum()


def _weight(labels_BU: torch.Tensor, weight_B: torch.Tensor | None) -> torch.Tensor:
    return torch.ones(len(labels_BU), device=labels_BU.device) if weight_B is None else weight_B
