"""What may happen to the weights: one frozen class per pruning method, on one page.

The code of a method is ``jobs/methods/<name>.py``; the numbers here are checked before anything is queued,
so that a wrong one costs no GPU. Windows are fractions of the job's optimizer steps.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from prunus.configs.values.base import Sparsity, Strict, Window
from prunus.configs.values.patterns import UNSTRUCTURED, NOfM, Pattern, parse_pattern
from prunus.configs.values.sources import Source


class Prunable(Strict):
    """Which weights a method may remove."""

    include: tuple[str, ...] = (r".*",)
    """Regular expressions (``re.search``) over weight names; a weight is taken if one of them matches. By
    default every ``nn.Linear.weight`` inside the encoder: heads, pooler and embeddings are out already."""

    exclude: tuple[str, ...] = ()
    """Regular expressions; a weight is left dense if one of them matches. Each must match something."""

    biases: bool = False
    """Take the biases of the chosen layers too (PARP does). Only for pattern unstructured."""

    @field_validator("include", "exclude")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {pattern!r} ({error})") from error
        return patterns


class WithBiases(Prunable):
    """As above, biases taken."""

    biases: bool = True


class Dense(Strict):
    """Prune nothing: teacher preparation, dense baselines."""

    name: Literal["dense"] = "dense"


class GradualMagnitude(Strict):
    """Remove the smallest weights, or groups of them, step by step (Zhu and Gupta, arXiv 1710.01878).

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
    schedule: Literal["cubic", "linear", "constant"] = "cubic"
    """How sparsity grows inside ``growth_window``: ``cubic`` (paper), ``linear``, or ``constant``: all at the first
    update in it. Movement pruning's warm-up and cool-down are a cubic with ``growth_window: [warm-up, 1 - cool-down]``.
    """
    pattern: Pattern = UNSTRUCTURED
    """Which weights go together: ``unstructured``; ``N:M`` along the inputs (``2:4``); blocks ``RxC`` (``4x4``);
    ``rows``, ``columns``, ``heads``, ``ffn_units``, ``sublayers``. With groups, sparsity is the share of groups."""
    norm: Literal["l1", "l2", "mean"] = "l1"
    """Score of a group: sum of |w|, root of the sum of squares, or mean of |w| (to compare groups of several sizes)."""
    scope: Literal["per_layer", "global", "per_group", "erk"] = "per_layer"
    """Who competes. ``per_layer``: every tensor gets the same sparsity (paper). ``global``: one threshold over all.
    ``per_group``: one for the tensors that ``group_by`` puts together. ``erk``: per tensor, larger ones sparser, kept
    share in proportion to (inputs + outputs) / (inputs x outputs) (Erdos-Renyi kernel; arXiv 1911.11134)."""
    group_by: str | None = None
    r"""With scope per_group: a regular expression whose first bracket names the group of a weight, for example
    ``layer\.(\d+)\.`` for one threshold per encoder layer."""
    mask: Source = "magnitude"
    """The first mask: ``magnitude``, or a source whose mask is put on the starting weights (shapes are checked);
    ``initial_sparsity`` is then that mask's. For rounds of iterative pruning: the mask of the round before, growth at
    the very end, and ``regrow: false``, so that what a round removed stays removed."""
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
        self._pattern_and_scope()
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

    def _pattern_and_scope(self) -> None:
        pattern = parse_pattern(self.pattern)
        if self.prunable.biases and pattern is not None:
            raise ValueError(f"prunable.biases: pattern {self.pattern} is made of rows and columns; leave biases out")
        if self.prunable.biases and self.scope == "erk":
            raise ValueError("prunable.biases: scope erk counts inputs and outputs; use scope global")
        if self.norm != "l1" and (pattern is None or isinstance(pattern, NOfM)):
            raise ValueError(f"norm {self.norm} scores groups; pattern {self.pattern} has none: leave norm out")
        if isinstance(pattern, NOfM):
            if abs(self.final_sparsity - pattern.sparsity) > 1e-6:  # 2/3 is written 0.666667
                raise ValueError(
                    f"pattern {self.pattern} removes {pattern.sparsity:.6g} of the weights, final_sparsity is "
                    f"{self.final_sparsity}; set final_sparsity: {pattern.sparsity:.6g}"
                )
            if self.scope != "per_layer":
                raise ValueError(f"pattern {self.pattern} decides every {pattern.of} weights alone: leave scope out")
        if self.scope == "erk" and pattern is not None:
            raise ValueError(f"scope erk counts single weights, pattern {self.pattern} groups; use scope global")
        if (self.scope == "per_group") != (self.group_by is not None):
            raise ValueError("group_by and scope: per_group go together; give both or neither")
        if self.group_by is not None:
            try:
                brackets = re.compile(self.group_by).groups
            except re.error as error:
                raise ValueError(f"group_by is not a regular expression: {self.group_by!r} ({error})") from error
            if brackets < 1:
                raise ValueError(
                    f"group_by {self.group_by!r} has no bracket to name the group by, as in 'layer.(\\d+)'"
                )


class Locked(Strict):
    """Keep a given pattern of zeros while the rest is trained (pattern lock, Prune OFA section 3)."""

    name: Literal["locked"] = "locked"
    mask: Source = "auto"
    """``auto``: the mask stored beside the starting checkpoint, else its zeros. ``zeros``: the zeros of the starting
    weights. Or a source whose mask is put on the starting weights (shapes are checked)."""
    prunable: Prunable = Prunable()


class Parp(Strict):
    """Prune, Adjust and Re-Prune (PARP; Lai et al., arXiv 2106.05933): zero the smallest weights, train all of them
    for ``update_every`` steps, zero the smallest anew.

    With ``initial_sparsity`` below ``final_sparsity`` it is the progressive form, PARP-P.
    """

    name: Literal["parp"] = "parp"
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

    @property
    def pattern(self) -> str:
        """Single weights compete."""
        return UNSTRUCTURED

    @property
    def norm(self) -> str:
        """Of no effect: there are no groups."""
        return "l1"

    @property
    def group_by(self) -> str | None:
        """None: see ``scope``."""
        return None

    @property
    def first_sparsity(self) -> float:
        """Sparsity of the first mask."""
        return self.final_sparsity if self.initial_sparsity is None else self.initial_sparsity


MethodSpec = Annotated[Dense | GradualMagnitude | Locked | Parp, Field(discriminator="name")]
