"""Cross-entropy and distillation over a vocabulary without ever holding its logits whole.

For rows s (tokens), student logits z = h W^T + b, teacher logits u = h' W'^T + b', labels y (-100: not predicted),
temperature T:

    task(s)    = -log softmax(z_s)[y_s]                                        for predicted rows
    teacher(s) = T^2 sum_v softmax(u_s / T)_v (log softmax(u_s / T)_v - log softmax(z_s / T)_v)     for distilled rows

(Hinton et al., arXiv 1503.02531; Prune OFA, arXiv 2111.05754, over all non-padding tokens.) Rows are taken in chunks:
at any time the logits of one chunk exist in fp32. The gradient is formed in the forward pass, chunk by chunk,

    d task / dz = softmax(z) - onehot(y)          d teacher / dz = T (softmax(z / T) - softmax(u / T))

so that nothing is projected twice. Letters: S rows, V vocabulary, H hidden of the student, K hidden of the teacher.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

IGNORED = -100
_ROWS_MULTIPLE = 32
"""Rows are filled up to a multiple: their number changes with every batch, and for each new one a CPU's matrix library
(oneDNN, bf16) makes and keeps a kernel of its own, 17 MB each (measured: 1 GB more after 60 steps)."""


@dataclass(frozen=True)
class Projection:
    """The last linear layer of a language model: weight (V, H), bias (V,) or None."""

    weight_VH: torch.Tensor
    bias_V: torch.Tensor | None

    def logits(self, hidden_SH: torch.Tensor) -> torch.Tensor:
        """Logits of some rows in fp32, computed in the hidden's dtype; shape (S, V)."""
        dtype = hidden_SH.dtype
        bias = None if self.bias_V is None else self.bias_V.to(dtype)
        return F.linear(hidden_SH, self.weight_VH.to(dtype), bias).float()


@dataclass(frozen=True)
class Mix:
    """How the two terms are weighed.

    Attributes:
        task_scale: Factor of the summed task loss (weight / number of predicted rows in the whole step).
        teacher_scale: Factor of the summed distillation loss; 0 without a teacher.
        temperature: T > 0.
        chunk_rows: Rows projected at a time.
    """

    task_scale: float
    teacher_scale: float
    temperature: float
    chunk_rows: int


def projection_loss(
    hidden_SH: torch.Tensor,
    student: Projection,
    labels_S: torch.Tensor,
    mix: Mix,
    teacher_hidden_SK: torch.Tensor | None = None,
    teacher: Projection | None = None,
    distilled_S: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the mixed loss of some rows.

    Args:
        hidden_SH: Student's input of its last layer.
        labels_S: Token ids, -100 where nothing is predicted.
        teacher_hidden_SK: The teacher's, for the same rows; None without distillation.
        distilled_S: Bool, rows that count for distillation.

    Returns:
        (loss, sums): a scalar to differentiate, and (2,) the unscaled sums of the task and teacher terms, for curves.
    """
    missing = -len(labels_S) % _ROWS_MULTIPLE
    if missing and len(labels_S):
        hidden_SH = F.pad(hidden_SH, (0, 0, 0, missing))
        labels_S = F.pad(labels_S, (0, missing), value=IGNORED)
        if teacher_hidden_SK is not None:
            teacher_hidden_SK = F.pad(teacher_hidden_SK, (0, 0, 0, missing))
        if distilled_S is not None:
            distilled_S = F.pad(distilled_S, (0, missing))
    bias_V = student.bias_V
    learns = torch.is_grad_enabled() and (hidden_SH.requires_grad or student.weight_VH.requires_grad)
    loss, sums = _ProjectionLoss.apply(  # type: ignore[no-untyped-call]
        hidden_SH, student.weight_VH, bias_V, labels_S, mix, teacher_hidden_SK, teacher, distilled_S, learns
    )
    return loss, sums


class _ProjectionLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden_SH: torch.Tensor,
        weight_VH: torch.Tensor,
        bias_V: torch.Tensor | None,
        labels_S: torch.Tensor,
        mix: Mix,
        teacher_hidden_SK: torch.Tensor | None,
        teacher: Projection | None,
        distilled_S: torch.Tensor | None,
        learns: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        dtype = hidden_SH.dtype
        low_VH = weight_VH.to(dtype)  # once, not for each chunk
        student = Projection(low_VH, bias_V)
        if teacher is not None and teacher_hidden_SK is not None:
            teacher = Projection(teacher.weight_VH.to(teacher_hidden_SK.dtype), teacher.bias_V)
        sums = torch.zeros(2, dtype=torch.float32, device=hidden_SH.device)
        grad_hidden_SH = torch.empty_like(hidden_SH) if learns else None
        grad_weight_VH = torch.zeros_like(weight_VH, dtype=torch.float32) if learns else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if learns and bias_V is not None else None
        for begin in range(0, hidden_SH.shape[0], mix.chunk_rows):
            rows = slice(begin, begin + mix.chunk_rows)
            logits_CV = student.logits(hidden_SH[rows])
            teacher_CV = None
            if teacher is not None and teacher_hidden_SK is not None:
                teacher_CV = teacher.logits(teacher_hidden_SK[rows])
            distilled_C = None if distilled_S is None else distilled_S[rows]
            grad_CV = _chunk(logits_CV, labels_S[rows], teacher_CV, distilled_C, mix, sums, learns)
            if grad_CV is not None and grad_hidden_SH is not None and grad_weight_VH is not None:
                low_CV = grad_CV.to(dtype)
                grad_hidden_SH[rows] = low_CV @ low_VH
                if dtype == torch.float32:
                    grad_weight_VH.addmm_(low_CV.T, hidden_SH[rows])
                else:
                    grad_weight_VH += low_CV.T @ hidden_SH[rows]
                if grad_bias_V is not None:
                    grad_bias_V += grad_CV.sum(0)
        ctx.grads = (  # type: ignore[attr-defined]
            grad_hidden_SH,
            None if grad_weight_VH is None else grad_weight_VH.to(weight_VH.dtype),
            None if grad_bias_V is None or bias_V is None else grad_bias_V.to(bias_V.dtype),
        )
        loss = mix.task_scale * sums[0] + mix.teacher_scale * sums[1]
        ctx.mark_non_differentiable(sums)
        return loss, sums

    @staticmethod
    def backward(ctx, grad_loss, _grad_sums):  # type: ignore[no-untyped-def]
        scaled = [None if grad is None else grad.mul_(grad_loss) for grad in ctx.grads]
        ctx.grads = (None, None, None)
        return *scaled, None, None, None, None, None, None


def _chunk(
    logits_CV: torch.Tensor,
    labels_C: torch.Tensor,
    teacher_CV: torch.Tensor | None,
    distilled_C: torch.Tensor | None,
    mix: Mix,
    sums: torch.Tensor,
    learns: bool,
) -> torch.Tensor | None:
    """Add this chunk's terms to ``sums``; return the gradient of the mixed loss with respect to its logits.

    Overwrites both logits: these arrays are far larger than any cache, so each pass over one counts.
    """
    is_predicted_C = labels_C != IGNORED
    predicted_C = is_predicted_C.nonzero().view(-1)
    most = 2 * len(predicted_C) > len(labels_C)  # else it pays to copy the predicted rows out
    task_grad = None
    if len(predicted_C):
        if most:
            task_grad = _task_term(logits_CV, labels_C, is_predicted_C, sums)
        else:
            labels_P = labels_C[predicted_C]
            task_grad = _task_term(logits_CV[predicted_C], labels_P, labels_P != IGNORED, sums)
        task_grad = task_grad.mul_(mix.task_scale) if learns and mix.task_scale else None
    grad_CV = None
    if teacher_CV is not None and distilled_C is not None and mix.teacher_scale and bool(distilled_C.any()):
        grad_CV = _teacher_term(logits_CV, teacher_CV, distilled_C, mix.temperature, sums)
        grad_CV.mul_(mix.temperature * mix.teacher_scale * distilled_C.view(-1, 1))
    if not learns:
        return None
    if task_grad is not None and most:
        return task_grad if grad_CV is None else grad_CV.add_(task_grad)
    if grad_CV is None:
        grad_CV = torch.zeros_like(logits_CV)
    return grad_CV if task_grad is None else grad_CV.index_add_(0, predicted_C, task_grad)


def _task_term(
    logits_CV: torch.Tensor, labels_C: torch.Tensor, counts_C: torch.Tensor, sums: torch.Tensor
) -> torch.Tensor:
    """Add the cross-entropy of the rows that count to ``sums[0]``; return its gradient, 0 for the others."""
    target_C1, counts_C1 = labels_C.clamp(min=0).view(-1, 1), counts_C.view(-1, 1)
    p_CV, normalizer_C1 = _softmax(logits_CV)
    sums[0] += ((normalizer_C1 - logits_CV.gather(1, target_C1)) * counts_C1).sum()
    if not bool(counts_C.all()):
        p_CV.mul_(counts_C1)
    return p_CV.scatter_add_(1, target_C1, -counts_C1.to(p_CV.dtype))


def _teacher_term(
    logits_CV: torch.Tensor, teacher_CV: torch.Tensor, distilled_C: torch.Tensor, temperature: float, sums: torch.Tensor
) -> torch.Tensor:
    """Add the distillation of the chosen rows to ``sums[1]``; return softmax(z / T) - softmax(u / T) of all rows."""
    p_CV, teacher_normalizer_C1 = _softmax(teacher_CV.div_(temperature))
    q_CV, normalizer_C1 = _softmax(logits_CV.div_(temperature))
    # sum_v p (log p - log q), where log p = u / T - normalizer
    distance_C = (teacher_CV.sub_(logits_CV).mul_(p_CV)).sum(1) - (teacher_normalizer_C1 - normalizer_C1).view(-1)
    sums[1] += temperature**2 * (distance_C * distilled_C).sum()
    return q_CV.sub_(p_CV)


def _softmax(logits_CV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities, and log sum exp of each row, (C, 1), for two passes more: the largest probability is
    exp(largest logit - log sum exp).
    """
    p_CV = torch.softmax(logits_CV, 1)
    return p_CV, logits_CV.amax(1, keepdim=True) - p_CV.amax(1, keepdim=True).log()


def whole_loss(
    logits_SV: torch.Tensor,
    labels_S: torch.Tensor,
    mix: Mix,
    teacher_logits_SV: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same loss on logits that exist already (classification: a few classes); every row is distilled."""
    task = F.cross_entropy(logits_SV.float(), labels_S, reduction="sum", ignore_index=IGNORED)
    teacher = torch.zeros_like(task)
    if teacher_logits_SV is not None:
        temperature = mix.temperature
        log_p_SV = torch.log_softmax(teacher_logits_SV.float() / temperature, 1)
        log_q_SV = torch.log_softmax(logits_SV.float() / temperature, 1)
        teacher = temperature**2 * F.kl_div(log_q_SV, log_p_SV, reduction="sum", log_target=True)
    return mix.task_scale * task + mix.teacher_scale * teacher, torch.stack([task, teacher]).detach()
