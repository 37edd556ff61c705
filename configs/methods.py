"""What may happen to the weights: one frozen class per pruning method, on one page.

The code of a method is ``jobs/methods/<name>.py``; the numbers here are checked before anything is queued,
so that a wrong one costs no GPU. Windows are fractions of the job's optimizer steps.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from configs.base import Sparsity, Strict, Window
from configs.sources import Source


class Prunable(Strict):
    """Which weights a method may remove."""

    include: tuple[str, ...] = (r".*",)
    """Regular expressions (``re.search``) over weight names; a weight is taken if one of them matches. By
    default every ``nn.Linear.weight`` inside the encoder: heads, pooler and embeddings are out already."""

    exclude: tuple[str, ...] = ()
    """Regular expressions; a weight is left dense if one of them matches. Each must match something."""

    @field_validator("include", "exclude")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {pattern!r} ({error})") from error
        return patterns


class Dense(Strict):
    """Prune nothing: teacher preparation, dense baselines."""

    name: Literal["dense"] = "dense"


class GradualMagnitude(Strict):
    """Remove the smallest weights step by step on a cubic schedule (Zhu and Gupta, arXiv 1710.01878).

    With distillation and ``linear_rewind`` this is the student pruning of Prune OFA (arXiv 2111.05754). One-shot
    magnitude pruning is the same method with ``initial_sparsity == final_sparsity``.
    """

    name: Literal["gradual_magnitude"] = "gradual_magnitude"
    final_sparsity: Sparsity
    """Share of the prunable weights removed at the end, in [0, 1). Paper: 0.85 and 0.90."""
    initial_sparsity: Sparsity = 0.0
    """Share removed at the first update, in [0, final_sparsity]. Paper: 0."""
    growth_window: Window = (0.0, 0.5)
    """Where sparsity grows. Paper: steps 0-50k of 100k."""
    selection_window: Window = (0.0, 0.8)
    """Where masks may change; from its end the pattern is frozen. Paper: steps 0-80k of 100k."""
    update_every: int = Field(default=100, ge=1)
    """Optimizer steps between two mask updates. Paper: 1,000 of 100k."""
    scope: Literal["per_layer", "global"] = "per_layer"
    """``per_layer``: every tensor gets the same sparsity (paper). ``global``: one threshold over all."""
    regrow: bool = True
    """Keep the removed values in a hidden fp32 copy, so that a weight may return at a later update (paper).
    Costs 4 bytes per prunable weight, sharded like the fp32 master."""
    prunable: Prunable = Prunable()

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name in ("growth_window", "selection_window"):
            begin, end = getattr(self, name)
            if begin > end:
                raise ValueError(f"{name} begins after it ends: [{begin}, {end}]; swap the two")
        if self.initial_sparsity > self.final_sparsity:
            raise ValueError(
                f"initial_sparsity {self.initial_sparsity} is above final_sparsity {self.final_sparsity}; "
                "sparsity only grows"
            )
        if self.selection_window[1] < self.growth_window[1]:
            raise ValueError(
                f"selection_window ends at {self.selection_window[1]}, before growth_window at "
                f"{self.growth_window[1]}: final_sparsity could not be reached; let selection end at or after growth"
            )
        if self.selection_window[0] > self.growth_window[0]:
            raise ValueError(
                f"selection_window begins at {self.selection_window[0]}, after growth_window at "
                f"{self.growth_window[0]}; let selection begin at or before growth"
            )
        return self


class Locked(Strict):
    """Keep a given pattern of zeros while the rest is trained (pattern lock, Prune OFA section 3)."""

    name: Literal["locked"] = "locked"
    mask: Source = "auto"
    """``auto``: the mask stored beside the starting checkpoint, else its zeros. ``zeros``: the zeros of the starting
    weights. Or a source whose mask is put on the starting weights (shapes are checked)."""
    prunable: Prunable = Prunable()


MethodSpec = Annotated[Dense | GradualMagnitude | Locked, Field(discriminator="name")]
