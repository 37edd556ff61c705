"""Pre-training of wav2vec 2.0 (Baevski et al., arXiv 2006.11477, sections 2 and 3.2).

::

    z = feature encoder(samples)         c = context network(z with masked frames replaced)    q = quantiser(z)
    codes   per group: argmax(l + n), n Gumbel noise; straight through softmax((l + n) / tau)
    L_m     = - sum over masked t of log( exp(cos(c_t, q_t) / kappa) / sum over q~ of exp(cos(c_t, q~) / kappa) )
              q~: q_t and K negatives, frames of the same clip that are masked too
    L_d     = (G V - perplexity) / (G V) * masked frames
              perplexity: sum over groups of exp(entropy of the mean softmax)
    loss    = scale * (L_m + alpha L_d)

The loop's scale is 1 / masked frames of the whole optimizer step, on all ranks: the loss is divided before backward,
which is right under ZeRO too (transformers' example multiplies gradients afterwards, when they are sharded already).

Frames that are not masked are never targets, so only masked ones are quantised and projected (as in fairseq), and a
clip's cosine similarities are one matrix, of which the negatives are picked: (B, T, T) numbers instead of
transformers' (K, B, T, P). Equal to ``Wav2Vec2ForPreTraining.forward`` in evaluation mode, and in training for equal
noise, but for one thing: "a negative with the true code does not count" is told by the codes themselves; there by the
projected vectors, which rounding can make differ.

Differs from fairseq: no penalty on the size of z (its weight 10), no smaller gradient into the feature encoder (its
``feature_grad_mult`` 0.1), no layer drop. Perplexity, and so L_d, is of the frames of a micro-batch on one rank, as
everywhere; the contrastive part is the same however a step is cut.

Letters: B clips, T frames, S masked frames of all clips, K negatives, H hidden size, C channels of z, G groups of V
codes, D size of a code of a group, P size of a projection.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from prunus.configs.tasks.wav2vec2_pretraining import Wav2Vec2Pretraining
from prunus.jobs.objectives.base import Batch, Objective, Result, Weights


class PretrainingObjective(Objective):
    """Contrastive and diversity loss; evaluation gets the contrastive sum, the frames whose true code wins, and how
    often each code was chosen (G, V)."""

    def __init__(self, student: PreTrainedModel, weights: Weights, autocast: bool, spec: Wav2Vec2Pretraining) -> None:
        super().__init__(student, None, weights, autocast)
        self._spec = spec
        self._sees_padding = student.config.feat_extract_norm == "layer"
        # In place of its own forward, so that engines gather the codes, which it holds itself, as for its own.
        student.quantizer.forward = self._quantise

    @property
    def gumbel_temperature(self) -> float:
        """Of the next optimizer step."""
        gumbel = self._spec.gumbel
        return max(gumbel.min, gumbel.max * gumbel.decay**self.step)

    def forward(self, batch: Batch, scales: Sequence[float]) -> Result:
        student, masked_BT = self.student, masked_frames(batch)
        with torch.autocast(masked_BT.device.type, dtype=torch.bfloat16, enabled=self._autocast):
            found = student.base_model(
                batch["input_values"].to(next(student.project_hid.parameters()).dtype),
                attention_mask=batch["attention_mask"] if self._sees_padding else None,
                mask_time_indices=batch["time_mask"],
            )
            context_SP = student.project_hid(found.last_hidden_state[masked_BT])
            codes_SG, chosen_SGV, vectors_SD = student.quantizer(
                student.dropout_features(found.extract_features[masked_BT])
            )
            targets_SP = student.project_q(vectors_SD)
        logits_SN = contrastive_logits(
            context_SP, targets_SP, self._number(codes_SG), masked_BT, batch["negatives"],
            self._spec.contrastive_temperature,
        )  # fmt: skip
        contrastive = F.cross_entropy(logits_SN, logits_SN.new_zeros(len(logits_SN), dtype=torch.long), reduction="sum")
        loss = contrastive + self._spec.diversity_weight * diversity_loss(chosen_SGV)
        sums = loss.detach().view(1)
        scaled = self.weights.task * scales[0] * loss
        if self.training:
            return scaled, sums, None
        wins = (logits_SN[:, 0] > logits_SN[:, 1:].amax(1)).sum()
        return scaled, sums, (contrastive.detach(), wins, chosen_SGV.detach().sum(0))

    def _quantise(self, features_SC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The quantiser's forward: numbers of the codes (S, G), what the perplexity is of (S, G, V), vectors (S, G D).

        In training the codes are drawn, and the perplexity is of the softmax without noise; in evaluation the codes
        are the best ones, and the perplexity is theirs.
        """
        quantizer = self.student.quantizer
        groups, codes = quantizer.num_groups, quantizer.num_vars
        logits_SGV = quantizer.weight_proj(features_SC).float().view(-1, groups, codes)
        if self.training:
            soft_SGV = ((logits_SGV + gumbel_noise(logits_SGV)) / self.gumbel_temperature).softmax(2)
            codes_SG = soft_SGV.argmax(2)
            hard_SGV = F.one_hot(codes_SG, codes).float()
            chosen_SGV, used_SGV = logits_SGV.softmax(2), hard_SGV + (soft_SGV - soft_SGV.detach())
        else:
            codes_SG = logits_SGV.argmax(2)
            chosen_SGV = used_SGV = F.one_hot(codes_SG, codes).float()
        codebook_GVD = quantizer.codevectors.view(groups, codes, -1)
        vectors_SGD = torch.einsum("sgv,gvd->sgd", used_SGV.to(codebook_GVD.dtype), codebook_GVD)
        return codes_SG, chosen_SGV, vectors_SGD.flatten(1)

    def _number(self, codes_SG: torch.Tensor) -> torch.Tensor:
        """One number for the codes of all groups, shape (S,)."""
        quantizer = self.student.quantizer
        place_G = quantizer.num_vars ** torch.arange(quantizer.num_groups, device=codes_SG.device)
        number_S: torch.Tensor = (codes_SG * place_G).sum(1)
        return number_S

    def counts(self, batch: Batch) -> torch.Tensor:
        """Masked frames; float64 (1,)."""
        return masked_frames(batch).sum().double().view(1)

    def close(self) -> None:
        del self.student.quantizer.forward


def masked_frames(batch: Batch) -> torch.Tensor:
    """Bool (B, T): the frames that count; none of rows that only fill up."""
    masked_BT = batch["time_mask"]
    return masked_BT if "weight" not in batch else masked_BT & (batch["weight"] > 0)[:, None]


def contrastive_logits(
    context_SP: torch.Tensor,
    targets_SP: torch.Tensor,
    codes_S: torch.Tensor,
    masked_BT: torch.Tensor,
    negatives_BTK: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Cosine similarities with the true frame (first) and its negatives over the temperature; fp32 (S, 1 + K).

    A negative that has the true frame's code is -inf.

    Args:
        codes_S: Equal for equal codes.
        negatives_BTK: Frames of the same clip, masked ones; of rows that are not masked nothing is read.
    """
    with torch.autocast(context_SP.device.type, enabled=False):
        context_BTP = _spread(F.normalize(context_SP.float(), dim=1), masked_BT)
        targets_BTP = _spread(F.normalize(targets_SP.float(), dim=1), masked_BT)
        similarity_ST = torch.bmm(context_BTP, targets_BTP.transpose(1, 2))[masked_BT]
    clip_S, true_S = masked_BT.nonzero(as_tuple=True)
    negatives_SK = negatives_BTK[masked_BT]
    logits_SN = similarity_ST.gather(1, torch.cat([true_S[:, None], negatives_SK], dim=1)) / temperature
    codes_BT = torch.zeros_like(masked_BT, dtype=codes_S.dtype).masked_scatter(masked_BT, codes_S)
    is_true_SK = codes_BT[clip_S[:, None], negatives_SK] == codes_S[:, None]
    return logits_SN.masked_fill(F.pad(is_true_SK, (1, 0), value=False), float("-inf"))


def _spread(rows_SP: torch.Tensor, masked_BT: torch.Tensor) -> torch.Tensor:
    """Put masked frames back to their places; zeros elsewhere."""
    zeros_BTP = rows_SP.new_zeros(*masked_BT.shape, rows_SP.shape[1])
    return zeros_BTP.masked_scatter(masked_BT[:, :, None], rows_SP)


def perplexity(chosen_GV: torch.Tensor) -> torch.Tensor:
    """Codes in use: sum over groups of exp(entropy); G if each group uses one, G V if all equally.

    Args:
        chosen_GV: Shares of the codes; each row adds up to 1, or to 0.
    """
    # Where a share underflows to 0 the gradient of p log p would be infinite, and NaN times the softmax's 0.
    logs_GV = chosen_GV.clamp(min=torch.finfo(chosen_GV.dtype).tiny).log()
    return torch.exp(-(chosen_GV * logs_GV).sum(1)).sum()


def diversity(chosen_GV: torch.Tensor) -> torch.Tensor:
    """Share of the codes that is not in use, in [0, 1): (G V - perplexity) / (G V)."""
    return 1.0 - perplexity(chosen_GV) / chosen_GV.numel()


def diversity_loss(chosen_SGV: torch.Tensor) -> torch.Tensor:
    """Diversity of the mean over frames, times the frames."""
    return diversity(chosen_SGV.sum(0) / max(1, len(chosen_SGV))) * len(chosen_SGV)


def gumbel_noise(like: torch.Tensor) -> torch.Tensor:
    """Draw -log(Exp(1)), from the generator of the tensor's device."""
    return -torch.empty_like(like).exponential_().log()
