"""Movement pruning: weights that move towards zero go, whatever their size.

Source: Sanh, Wolf and Rush, "Movement Pruning: Adaptive Sparsity by Fine-Tuning" (NeurIPS 2020, arXiv 2005.07683), and
the code published with it, for the schedule, the penalty and the values of the recipe.

    forward    W' = M * W                            removed weights are zero in master and copy, their values are kept
    scores     dL/dS = dL/dW' * W                    of all weights, removed ones too: straight through the mask
    weights    dL/dW = dL/dW' * M                    a removed weight rests until its score brings it back
    hard       M = 1 for the (1 - s) n highest S     of each matrix, or of all; s(t) as gradual magnitude's cubic
    soft       M = [sigmoid(S) > tau]                tau(t) the same cubic from 0
    penalty    lambda(t) mean over matrices of mean(sigmoid(S))            lambda(t) = lambda tau(t) / tau; soft only

Scores are fp32 runs beside the shards of the weights and no parameters of the model: no low-precision copy rounds
them, ZeRO needs no gradient of them, and they cost 12 bytes a weight with their Adam moments, shared out over ranks
under ZeRO 1-3.

Differs from the published code: exactly n - floor((1 - v) n) weights stay where it keeps int(v n), the same or one
more; ties go by position (there: kthvalue and >, which keeps nothing of equal scores); soft keeps at least the
int(0.005 n) + 1 highest scores of a matrix, exactly; gradients of scores are not clipped with those of the weights; a
removed weight rests, without momentum (its first Adam moment is cleared) and without weight decay; scores always have
AdamW's own betas and eps; frozen embeddings freeze the masked-LM decoder that is tied to them; the penalty has no
curve; one threshold over all matrices is chosen at every update, there every 25 steps.
"""

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from transformers import PreTrainedModel

from prunus.configs.artifacts.comparison.overlap import Overlap
from prunus.configs.methods.movement import Movement
from prunus.jobs.engine.engine import ParamGroup
from prunus.jobs.engine.gradients import gradient_L, overflowed
from prunus.jobs.errors import CheckpointError
from prunus.jobs.methods.base import Method, Start
from prunus.jobs.models.anatomy import Anatomy
from prunus.jobs.sparsity.select_smallest import Scores, keep_largest, refuse_not_finite
from prunus.jobs.sparsity.selector import Selector

_CLEARED = ("exp_avg",)
"""Of a removed weight. The second moment stays as the scale that a weight which returns finds: cleared while Adam's
step count is high, it would make its first steps several learning rates long."""
_LEAST_SHARE = 0.005
"""Of each matrix, that soft keeps whatever the threshold."""


class MovementMethod(Method[Movement]):
    """Scores begin at 0 and learn by AdamW; masks follow them."""

    reads_gradients = True

    def prepare(self, model: PreTrainedModel, anatomy: Anatomy) -> list[ParamGroup]:
        if self.spec.freeze_embeddings:
            for name in anatomy.embeddings:
                model.get_parameter(name).requires_grad_(False)
        return []

    def attach(self, start: Start) -> None:
        super().attach(start)
        shards = self.weights.shards
        device = start.ranks.device
        self.scores = [torch.zeros(shard.numel, device=device) for shard in shards]
        """Of each shard's run, fp32."""
        self._removed = [torch.zeros(shard.numel, device=device) for shard in shards]
        """Values of removed weights, 0 elsewhere."""
        owned = [score_L for score_L in self.scores if score_L.numel()]
        self._optimizer = None
        if owned:
            self._optimizer = torch.optim.AdamW(owned, lr=self.spec.score_lr, weight_decay=0.0, fused=True)
        self._selector = Selector(self.spec.selection, self.spec.final_sparsity or 0.0, shards, start.ranks)

    def first_masks(self) -> None:
        self.after_step(0)

    def read_gradients(self, step: int) -> None:
        """One step of AdamW on the scores: dS = dL/dW' * W, and of the penalty."""
        if overflowed(self.weights.shards, self.start.ranks) or self._optimizer is None:
            return
        push = 0.0
        if self.spec.variant == "soft":
            push = self.spec.penalty_at(step, self.start.num_steps) / len(self.weights.shards)
        for shard, score_L, removed_L in zip(self.weights.shards, self.scores, self._removed, strict=True):
            if not shard.numel:
                continue
            moved_L = gradient_L(shard) * (shard.master_L() + removed_L)
            if push:
                share_L = score_L.sigmoid()
                moved_L += push / shard.global_numel * share_L * (1.0 - share_L)
            score_L.grad = moved_L
        for group in self._optimizer.param_groups:
            group["lr"] = self.spec.score_lr * self.start.lr_factor(step)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def after_step(self, steps_done: int) -> Overlap | None:
        if not self.spec.updates_after(steps_done, self.start.num_steps):
            return None
        keep = self._hard(steps_done) if self.spec.variant == "hard" else self._soft(steps_done)
        return self.weights.set_local(keep, moments=_CLEARED, hidden=self._removed)

    def _hard(self, steps_done: int) -> Iterator[torch.Tensor]:
        sparsity = self.spec.sparsity_at(steps_done, self.start.num_steps)
        assert sparsity is not None, "checked by the spec"
        return self._selector.select(self.scores, sparsity, signed=True)

    def _soft(self, steps_done: int) -> list[torch.Tensor]:
        threshold = logit(self.spec.threshold_at(steps_done, self.start.num_steps))
        shards, ranks = self.weights.shards, self.start.ranks
        runs = [
            Scores(shard.name, shard.index, shard.start, score_L, shard.replicated, signed=True)
            for shard, score_L in zip(shards, self.scores, strict=True)
        ]
        refuse_not_finite(runs, ranks)
        keep = [score_L > threshold for score_L in self.scores]
        kept = torch.tensor([int(keep_L.sum()) for keep_L in keep], device=ranks.device)
        replicated = torch.tensor([shard.replicated for shard in shards], device=ranks.device)
        kept = torch.where(replicated, kept, ranks.sum(torch.where(replicated, 0, kept)))
        for i, (shard, num_kept) in enumerate(zip(shards, kept.tolist(), strict=True)):
            least = int(_LEAST_SHARE * shard.global_numel) + 1
            if num_kept < least:
                (keep[i],) = keep_largest([runs[i]], shard.global_numel - least, ranks)
        return keep

    @property
    def pattern(self) -> str:
        return self.spec.selection.pattern

    def state_dict(self) -> dict[str, Any]:
        optimizer = None if self._optimizer is None else self._optimizer.state_dict()
        return {"scores": self.scores, "removed": self._removed, "optimizer": optimizer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if [run.numel() for run in state["scores"]] != [shard.numel for shard in self.weights.shards]:
            raise CheckpointError(
                "the checkpoint was written by another number of ranks or another engine.strategy; resume with the same"
            )
        for own, saved in zip([*self.scores, *self._removed], [*state["scores"], *state["removed"]], strict=True):
            own.copy_(saved)
        if self._optimizer is not None:
            self._optimizer.load_state_dict(state["optimizer"])


def logit(probability: float) -> float:
    """log(p / (1 - p)); minus infinity at 0. sigmoid(S) > p is S > logit(p)."""
    with suppress(ZeroDivisionError, ValueError):
        return math.log(probability / (1.0 - probability))
    return -math.inf
