"""Gradual magnitude pruning, as Prune OFA uses it (arXiv 2111.05754; 1710.01878)."""

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from prunus.configs.methods.base import MethodBase
from prunus.configs.schedules import cubic_sparsity, is_update_step, linear_sparsity, window_steps
from prunus.configs.values.base import Sparsity, Window
from prunus.configs.values.patterns import UNSTRUCTURED, NOfM, Pattern, parse_pattern
from prunus.configs.values.prunable import Prunable
from prunus.configs.values.selection import Norm, Scope, Selection
from prunus.configs.values.sources import Source


class GradualMagnitude(MethodBase):
    """Remove the smallest weights, or groups of them, step by step (Zhu and Gupta, arXiv 1710.01878).

    With distillation and ``linear_rewind`` this is the student pruning of Prune OFA (arXiv 2111.05754). One-shot
    magnitude pruning is the same method with ``initial_sparsity == final_sparsity``.
    """

    name: Literal["gradual_magnitude"] = "gradual_magnitude"
    """Selects this method."""
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
    norm: Norm = "l1"
    """Score of a group: sum of |w|, root of the sum of squares, or mean of |w| (to compare groups of several sizes)."""
    scope: Scope = "per_layer"
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
    """Which weights may be removed."""

    @property
    def selection(self) -> Selection:
        """What goes together and who competes."""
        return Selection(self.pattern, self.norm, self.scope, self.group_by)

    def updates_after(self, step: int, num_steps: int) -> bool:
        growth = window_steps(self.growth_window, num_steps)
        return is_update_step(step, window_steps(self.selection_window, num_steps), growth, self.update_every)

    def sparsity_at(self, step: int, num_steps: int) -> float:
        growth = window_steps(self.growth_window, num_steps)
        if self.schedule == "constant":
            sparsity = self.final_sparsity if step >= growth.begin else self.initial_sparsity
        else:
            rule = cubic_sparsity if self.schedule == "cubic" else linear_sparsity
            sparsity = rule(step, growth, self.initial_sparsity, self.final_sparsity)
        pattern = parse_pattern(self.pattern)
        if isinstance(pattern, NOfM):  # only so many steps on the way: 0, 1/4, 2/4
            return pattern.num_removed(sparsity, self.final_sparsity) / pattern.of
        return sparsity

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
