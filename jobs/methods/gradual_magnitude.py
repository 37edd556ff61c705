"""Gradual magnitude pruning: remove the smallest weights, or groups of them, on a schedule.

Sources: Zhu and Gupta (arXiv 1710.01878), equation 1, for the schedule; Zafrir et al., "Prune Once for All" (arXiv
2111.05754), section 3.2, and the scheduler published with it for the two windows and the uniform sparsity per layer.

    s(t)   = s_f + (s_i - s_f) (1 - (t - t0) / (t1 - t0))^3        spec.sparsity_at (or linear, constant)
    k      = floor(s n) weights of a layer (or of all) go          selection.count_to_remove
    m      = 0 for the k smallest |w|                              sparsity.Selector (or blocks, N:M, heads, …)

Differs from the paper: exactly k weights go (the published code drops every tie at the threshold); a removed value is
frozen in the hidden copy (there, momentum and weight decay go on moving it); the removed weight's Adam moments are
cleared, so that one that returns starts afresh.
"""

from typing import Any

import torch

from prunus.configs.artifacts.comparison.overlap import Overlap
from prunus.configs.methods.gradual_magnitude import GradualMagnitude
from prunus.jobs.errors import CheckpointError, PruningError
from prunus.jobs.methods.base import Method, Start
from prunus.jobs.sparsity.arithmetic import Masks
from prunus.jobs.sparsity.arithmetic import sparsity as sparsity_of
from prunus.jobs.sparsity.selector import Selector

_MORE_ZEROS = 0.01
"""Share of zeros that a dense checkpoint may have by chance."""


class GradualMagnitudeMethod(Method[GradualMagnitude]):
    """Masks are chosen anew every ``update_every`` steps of the selection window."""

    def attach(self, start: Start) -> None:
        super().attach(start)
        spec = self.spec
        self._selector = Selector(
            spec.selection, spec.final_sparsity, self.weights.shards, start.ranks, start.num_heads
        )
        self._removed: list[torch.Tensor] | None = None
        """Last value of every owned weight that is removed, 0 for the others; None without regrow."""

    def first_masks(self) -> None:
        given = self.start.given_mask
        found = self._share_of_zeros() if given is None else sparsity_of(given)
        first = self.spec.sparsity_at(0, self.start.num_steps)  # which may be the final one
        if self.spec.final_sparsity and found > first + _MORE_ZEROS:
            raise PruningError(
                f"the {'starting checkpoint' if given is None else 'mask of method.mask'} is {found:.2f} sparse "
                f"already, and method.initial_sparsity {self.spec.initial_sparsity} would let its zeros grow back; set "
                f"initial_sparsity: {found:.2f}, or use method locked to keep its pattern"
            )
        if given is None:
            self.after_step(0)
        else:
            self._adopt(given)

    def _adopt(self, given: Masks) -> None:
        """Begin with a mask from elsewhere; with ``regrow`` what it removes may return at an update."""
        if self.spec.regrow:
            self._removed = [torch.zeros_like(shard.master_L()) for shard in self.weights.shards]
        device = self.start.ranks.device
        runs = (given[s.name].view(-1)[s.start : s.start + s.numel].to(device) for s in self.weights.shards)
        self.weights.set_local(runs, hidden=self._removed)

    def _share_of_zeros(self) -> float:
        """Over all ranks, of matrices alone: biases begin as zeros."""
        matrices = [shard for shard in self.weights.shards if len(shard.shape) > 1]
        counts = torch.zeros(2, dtype=torch.int64, device=self.start.ranks.device)  # of whole weights, of ranks' parts
        for shard in matrices:
            counts[0 if shard.replicated else 1] += int((shard.master_L() == 0).sum()) if shard.numel else 0
        self.start.ranks.sum(counts[1:])
        return int(counts.sum()) / max(1, sum(shard.global_numel for shard in matrices))

    @property
    def pattern(self) -> str:
        return self.spec.pattern

    def after_step(self, steps_done: int) -> Overlap | None:
        if not self.spec.updates_after(steps_done, self.start.num_steps):
            return None
        return self._update(self.spec.sparsity_at(steps_done, self.start.num_steps))

    def _update(self, sparsity: float) -> Overlap:
        masters = [shard.master_L() for shard in self.weights.shards]
        if not self.spec.regrow:
            return self.weights.set_local(self._selector.select(masters, sparsity))
        if self._removed is None:
            self._removed = [torch.zeros_like(master_L) for master_L in masters]
        # What competes: kept weights as they are, removed ones as they went.
        keep = self._selector.select(masters, sparsity, self._removed)
        return self.weights.set_local(keep, hidden=self._removed)

    def state_dict(self) -> dict[str, Any]:
        return {"removed": self._removed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        removed = state["removed"]
        if removed is not None and [r.numel() for r in removed] != [s.numel for s in self.weights.shards]:
            raise CheckpointError(
                "the checkpoint was written by another number of ranks or another engine.strategy; resume with the same"
            )
        self._removed = None if removed is None else [r.to(self.start.ranks.device) for r in removed]
