"""Who competes when weights are removed: one value, whatever the method and its scores."""

from dataclasses import dataclass
from typing import Literal

from prunus.configs.values.patterns import UNSTRUCTURED

Norm = Literal["l1", "l2", "mean"]
Scope = Literal["per_layer", "global", "per_group", "erk"]


@dataclass(frozen=True)
class Selection:
    """How a method that has a score for every weight comes to a mask.

    Attributes:
        pattern: Which weights go together; ``values.patterns`` has the words.
        norm: How the scores of a group make one: sum of magnitudes, root of the sum of squares, or mean.
        scope: Who competes: the weights (or groups) of a tensor, of all, or of those that ``group_by`` puts together;
            ``erk``: of a tensor, with shares by the Erdos-Renyi kernel.
        group_by: With scope per_group: a regular expression whose first bracket names the group of a weight.
    """

    pattern: str = UNSTRUCTURED
    norm: Norm = "l1"
    scope: Scope = "per_layer"
    group_by: str | None = None
