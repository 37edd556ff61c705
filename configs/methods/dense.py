"""No pruning: teachers and dense baselines."""

from typing import Literal

from prunus.configs.methods.base import MethodBase


class Dense(MethodBase):
    """Prune nothing: teacher preparation, dense baselines."""

    name: Literal["dense"] = "dense"
    """Selects this method."""
