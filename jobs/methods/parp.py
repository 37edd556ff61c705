"""PARP: Prune, Adjust and Re-Prune, and its progressive form PARP-P.

Source: Lai et al., "PARP: Prune, Adjust and Re-Prune for Self-Supervised Speech Recognition" (NeurIPS 2021, arXiv
2106.05933), Algorithm 1, and the code published with it for what is pruned and when.

    m_0    = UMP(theta_0, s_0), or a given mask
    repeat   theta <- m * theta                      zeroed, and free to move again: nothing holds them
             n optimizer steps on all of theta       "adjust"
             m     <- UMP(theta, s_t)                the k = floor(s_t P) smallest |w| of ONE pool go
    end      m * theta_N                             held, and exported
    s_t    = s (PARP), or linear from s_0 to s over the growth window (PARP-P; the published code: a step per pruning)

The pool: weights and biases of all linear layers of the encoder (q, k, v, out, fc1, fc2 of wav2vec 2.0).

Differs from the paper: intervals are optimizer steps, not epochs; sparsity is clamped at s (the published code may
overshoot by one step of growth); exactly k go, ties by position; evaluation within an adjust phase is of m * theta
(there, of the regrown dense weights); the last pruning is after the last step.
"""

import logging
from contextlib import AbstractContextManager

from prunus.configs.artifacts.comparison.overlap import Overlap
from prunus.configs.methods.parp import Parp
from prunus.jobs.engine.shards import MOMENTS
from prunus.jobs.methods.base import Method, Start
from prunus.jobs.sparsity.arithmetic import sparsity as sparsity_of
from prunus.jobs.sparsity.selector import Selector

log = logging.getLogger(__name__)
_OTHER_SPARSITY = 0.01
"""So much a given mask may differ from the first sparsity without a word."""


class ParpMethod(Method[Parp]):
    """Masks are chosen anew every ``update_every`` steps; between, every weight learns."""

    def attach(self, start: Start) -> None:
        super().attach(start)
        self._selector = Selector(self.spec.selection, self.spec.final_sparsity, self.weights.shards, start.ranks)

    def first_masks(self) -> None:
        given = self.start.given_mask
        if given is None:
            self.after_step(0)
            return
        found, first = sparsity_of(given), self.spec.first_sparsity
        if abs(found - first) > _OTHER_SPARSITY and self.start.ranks.is_main:
            log.warning(
                "the mask of method.mask removes %.2f of the weights, and the first pruning, after %d steps, goes "
                "on from %.2f: set method.initial_sparsity to the mask's, or use a mask of this sparsity",
                found, self.spec.update_every, first,
            )  # fmt: skip
        self.weights.set_masks(given, moments=(), hold=False)

    @property
    def pattern(self) -> str:
        return self.spec.selection.pattern

    def after_step(self, steps_done: int) -> Overlap | None:
        num_steps = self.start.num_steps
        if not self.spec.updates_after(steps_done, num_steps):
            return None
        last = steps_done == num_steps
        sparsity = self.spec.sparsity_at(steps_done, num_steps)
        keep = self._selector.select([shard.master_L() for shard in self.weights.shards], sparsity)
        return self.weights.set_local(keep, moments=MOMENTS if last or self.spec.reset_moments else (), hold=last)

    def evaluating(self) -> AbstractContextManager[None]:
        return self.weights.masked()
