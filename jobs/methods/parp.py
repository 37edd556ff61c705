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
from prunus.configs.schedules import is_parp_update, sparsity_at
from prunus.jobs.methods.base import Method, Start
from prunus.jobs.sparsity.arithmetic import sparsity as sparsity_of
from prunus.jobs.sparsity.selector import Selector

log = logging.getLogger(__name__)
_OTHER_SPARSITY = 0.01
"""So much a given mask may differ from the first sparsity without a word."""


class ParpMethod(Method[Parp]):
    """Masks are chosen anew every ``update_every`` steps; between, every weight learns."""

    def __init__(self, spec: Parp, start: Start) -> None:
        super().__init__(spec, start)
        self._selector = Selector(spec, self.weights.shards, start.ranks)

    def attach(self) -> None:
        given = self.start.given_mask
        if given is None:
            self.after_step(0)
        else:
            found, first = sparsity_of(given), self.spec.first_sparsity
            if abs(found - first) > _OTHER_SPARSITY and self.start.ranks.is_main:
                log.warning(
                    "the mask of method.mask removes %.2f of the weights, and the first pruning, after %d steps, goes "
                    "on from %.2f: set method.initial_sparsity to the mask's, or use a mask of this sparsity",
                    found, self.spec.update_every, first,
                )  # fmt: skip
            self.weights.set_masks(given, moments=False, hold=False)

    @property
    def pattern(self) -> str:
        return self.spec.pattern

    def target_sparsity(self, step: int) -> float:
        return sparsity_at(step, self.start.num_steps, self.spec)

    def after_step(self, steps_done: int) -> Overlap | None:
        if not is_parp_update(steps_done, self.start.num_steps, self.spec.update_every):
            return None
        last = steps_done == self.start.num_steps
        keep = self._selector.select([s.master_L() for s in self.weights.shards], self.target_sparsity(steps_done))
        return self.weights.set_local(keep, moments=last or self.spec.reset_moments, hold=last)

    def evaluating(self) -> AbstractContextManager[None]:
        return self.weights.masked()
