"""Keep the pattern of a sparse checkpoint (arXiv 2111.05754, section 3.3)."""

from typing import Literal

from prunus.configs.methods.base import MethodBase
from prunus.configs.values.prunable import Prunable
from prunus.configs.values.sources import Source


class Locked(MethodBase):
    """Keep a given pattern of zeros while the rest is trained (pattern lock, Prune OFA section 3)."""

    name: Literal["locked"] = "locked"
    """Selects this method."""
    mask: Source = "auto"
    """``auto``: the mask stored beside the starting checkpoint, else its zeros. ``zeros``: the zeros of the starting
    weights. Or a source whose mask is put on the starting weights (shapes are checked)."""
    prunable: Prunable = Prunable()
    """Which weights keep their pattern."""
