"""PARP and PARP-P (arXiv 2106.05933)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from prunus.configs.methods.base import MethodBase
from prunus.configs.schedules import is_parp_update, linear_sparsity, window_steps
from prunus.configs.values.base import Sparsity, Window
from prunus.configs.values.prunable import WithBiases
from prunus.configs.values.selection import Selection
from prunus.configs.values.sources import Source


class Parp(MethodBase):
    """Prune, Adjust and Re-Prune (PARP; Lai et al., arXiv 2106.05933): zero the smallest weights, train all of them
    for ``update_every`` steps, zero the smallest anew.

    With ``initial_sparsity`` below ``final_sparsity`` it is the progressive form, PARP-P.
    """

    name: Literal["parp"] = "parp"
    """Selects this method."""
    final_sparsity: Sparsity
    """Share of the prunable weights that is zero at the end, in [0, 1). Paper: 0.1 to 0.9."""
    initial_sparsity: Sparsity | None = None
    """Share that the first mask removes; None: final_sparsity (PARP). Below it (PARP-P): e.g. 0.7 for 0.9."""
    growth_window: Window = (0.0, 1.0)
    """PARP-P: where sparsity grows, linearly. Paper: over the whole job."""
    update_every: int = Field(default=50, ge=1)
    """Optimizer steps of adjusting between two prunings; the last pruning is after the last step. Paper's scripts: 5 to
    150."""
    mask: Source = "magnitude"
    """The first mask: ``magnitude`` of the starting weights, or a source whose mask is put on them (of another
    language, of a random model)."""
    reset_moments: bool = False
    """Forget Adam's moments of the weights that are zeroed. Paper's code: kept."""
    scope: Literal["global", "per_layer"] = "global"
    """Who competes: one threshold over all prunable weights (paper), or one per tensor."""
    prunable: WithBiases = WithBiases()
    """Which weights may be removed; their biases compete, too (paper)."""

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.growth_window[0] > self.growth_window[1]:
            raise ValueError(f"growth_window begins after it ends: {list(self.growth_window)}; swap the two")
        if self.first_sparsity > self.final_sparsity:
            raise ValueError(
                f"initial_sparsity {self.initial_sparsity} is above final_sparsity {self.final_sparsity}; "
                "sparsity only grows"
            )
        return self

    def updates_after(self, step: int, num_steps: int) -> bool:
        return is_parp_update(step, num_steps, self.update_every)

    def sparsity_at(self, step: int, num_steps: int) -> float:
        growth = window_steps(self.growth_window, num_steps)
        return linear_sparsity(step, growth, self.first_sparsity, self.final_sparsity)

    @property
    def selection(self) -> Selection:
        """Single weights compete."""
        return Selection(scope=self.scope)

    @property
    def first_sparsity(self) -> float:
        """Sparsity of the first mask."""
        return self.final_sparsity if self.initial_sparsity is None else self.initial_sparsity
