"""What ``prunus inspect`` found: plain records, so that showing them needs no NumPy."""

from typing import Literal

from prunus.configs.values.base import Record


class Layer(Record):
    """One tensor, or one mask of a tensor."""

    name: str
    shape: tuple[int, ...]
    weights: int
    zeros: int
    """Weights that are exactly zero (either sign), or that the mask removes."""
    counted: bool
    """Part of the main total: a prunable weight, or a mask."""

    @property
    def sparsity(self) -> float:
        """Share of zeros in [0, 1]; 0 for an empty tensor."""
        return self.zeros / self.weights if self.weights else 0.0


class Total(Record):
    """A figure with its denominator named."""

    of: str
    """What is counted, for example ``prunable weights``."""
    tensors: int
    of_tensors: int
    """Tensors in the file(s) altogether."""
    weights: int
    """The denominator."""
    zeros: int
    sparsity: float
    """zeros / weights, in [0, 1]."""


class Report(Record):
    """All of ``prunus inspect PATH``."""

    path: str
    kind: Literal["model", "mask"]
    layers: tuple[Layer, ...]
    totals: tuple[Total, ...]
    notes: tuple[str, ...] = ()
    """What a reader must know: a guess, the manifest's verdict, the mask's step."""


def total(of: str, layers: list[Layer], of_tensors: int) -> Total:
    """Add up layers."""
    weights, zeros = sum(layer.weights for layer in layers), sum(layer.zeros for layer in layers)
    return Total(
        of=of,
        tensors=len(layers),
        of_tensors=of_tensors,
        weights=weights,
        zeros=zeros,
        sparsity=zeros / weights if weights else 0.0,
    )
