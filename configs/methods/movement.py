"""Movement pruning: keep the weights that move away from zero (Sanh, Wolf, Rush, NeurIPS 2020, arXiv 2005.07683)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from prunus.configs.methods.base import MethodBase
from prunus.configs.schedules import cubic_sparsity, window_steps
from prunus.configs.values.base import Sparsity, Window
from prunus.configs.values.prunable import Prunable
from prunus.configs.values.selection import Selection


class Movement(MethodBase):
    """Learn a score for every weight from products of weights and gradients; keep the weights with the highest scores.

    ``hard`` keeps a share, which shrinks to ``1 - final_sparsity``; ``soft`` keeps every weight whose score is above a
    threshold, which grows, while a penalty pushes scores down.
    """

    name: Literal["movement"] = "movement"
    """Selects this method."""
    variant: Literal["hard", "soft"] = "hard"
    """``hard``: the highest scores stay, as many as asked for (paper: MvP). ``soft``: all with sigmoid(score) above the
    threshold (paper: SMvP); how many that are follows from ``penalty``."""
    final_sparsity: Sparsity | None = None
    """hard: share of the prunable weights removed at the end, in [0, 1). Paper: 0.85 to 0.97."""
    scope: Literal["per_layer", "global"] = "per_layer"
    """hard: who competes: the weights of each matrix (paper), or of all."""
    final_threshold: float = Field(default=0.1, ge=0.0, lt=0.5)
    """soft: the threshold of sigmoid(score) at the end, in (0, 0.5): scores begin at sigmoid 0.5. Paper: 0.1."""
    penalty: float = Field(default=400.0, ge=0.0)
    """soft: weight at the end of the penalty, the mean of sigmoid(score); its gradient is added to that of the scores.
    It grows with the threshold; larger is sparser. Published code, on SQuAD: 400."""
    score_lr: float = Field(default=1e-2, gt=0.0)
    """Highest learning rate of the scores (AdamW without decay); it follows the schedule of ``train.lr``. Published
    code: 1e-2."""
    growth_window: Window = (0.1, 0.8)
    """Where sparsity, or the threshold, grows, as a cubic; before it nothing is removed, after it the target holds.
    Published code, on SQuAD: from one to two lengths of the learning rate's warm-up before the end."""
    update_every: int = Field(default=1, ge=1)
    """Optimizer steps between two choices of the mask. Published code: 1; 25 for one threshold over all matrices."""
    freeze_embeddings: bool = True
    """Leave the embeddings as they are. Published code: frozen."""
    prunable: Prunable = Prunable()
    """Which weights may be removed."""

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        begin, end = self.growth_window
        if begin > end:
            raise ValueError(f"growth_window begins after it ends: [{begin}, {end}]; swap the two")
        if begin == 0.0:
            raise ValueError(
                "growth_window begins at 0, where all scores are equal and weights would go by their position; let it "
                "begin later, for example at 0.1"
            )
        fields = type(self).model_fields
        changed = {name for name in fields if getattr(self, name) != fields[name].default}  # a round trip sets them all
        if self.variant == "hard":
            if self.final_sparsity is None:
                raise ValueError("variant hard keeps a share of the weights; give final_sparsity")
            if others := sorted({"final_threshold", "penalty"} & changed):
                raise ValueError(f"{others[0]} is for variant soft; leave it out, or set variant: soft")
        else:
            if others := sorted({"final_sparsity", "scope"} & changed):
                raise ValueError(
                    f"{others[0]} is for variant hard; with soft the number of weights that stay follows from "
                    "final_threshold and penalty"
                )
            if self.final_threshold == 0.0:
                raise ValueError("final_threshold 0 removes nothing: every sigmoid is above it; raise it")
        if self.prunable.biases:
            raise ValueError("prunable.biases: movement scores matrices; leave biases out")
        return self

    def updates_after(self, step: int, num_steps: int) -> bool:
        growth = window_steps(self.growth_window, num_steps)
        if step < growth.begin:
            return False
        return step in {growth.end, num_steps} or (step - growth.begin) % self.update_every == 0

    def sparsity_at(self, step: int, num_steps: int) -> float | None:
        if self.final_sparsity is None:
            return None
        return cubic_sparsity(step, window_steps(self.growth_window, num_steps), 0.0, self.final_sparsity)

    def threshold_at(self, step: int, num_steps: int) -> float:
        """soft: the threshold of sigmoid(score) after this step."""
        return cubic_sparsity(step, window_steps(self.growth_window, num_steps), 0.0, self.final_threshold)

    def penalty_at(self, step: int, num_steps: int) -> float:
        """soft: the weight of the penalty, which grows in proportion to the threshold."""
        return self.penalty * self.threshold_at(step, num_steps) / self.final_threshold

    @property
    def selection(self) -> Selection:
        """Single weights compete."""
        return Selection(scope=self.scope)
