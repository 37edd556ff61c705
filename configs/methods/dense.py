"""No pruning: teachers and dense baselines."""

from typing import Literal

from prunus.configs.values.base import Strict


class Dense(Strict):
    """Prune nothing: teacher preparation, dense baselines."""

    name: Literal["dense"] = "dense"
    """Selects this method."""
