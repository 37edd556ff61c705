"""Keep the zeros of a sparse checkpoint in anybody's training loop.

    model = AutoModelForSequenceClassification.from_pretrained("./out")
    held = hold(model)                # before or after the optimizer is made
    ...                               # train as always: a loop of your own, transformers' Trainer, DDP
    held.check()

A hook multiplies the gradient of each held weight by its mask. A weight whose value, gradient and moments are 0 stays 0
under SGD, Adam and AdamW (decay multiplies 0), so nothing is left to do after a step. Call it before
``deepspeed.initialize``, which copies the weights. Under ZeRO-3 and FSDP no process has the whole weight: there a job
of prunus with method ``locked`` keeps the pattern.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

_LEAST = 0.01
"""Share of zeros from which a matrix counts as sparse; below it they are there by chance."""


class Held:
    """Weights whose zeros are kept. :func:`hold` makes it.

    Attributes:
        masks: Name of each held weight -> bool tensor of its shape; True keeps.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], masks: Mapping[str, torch.Tensor]) -> None:
        self._parameters = dict(parameters)
        self.masks = dict(masks)
        self._hooks = [
            parameter.register_hook(partial(_masked, masks[name]))  # type: ignore[no-untyped-call]
            for name, parameter in self._parameters.items()
            if parameter.requires_grad  # what is frozen stays as it is
        ]

    @property
    def sparsity(self) -> float:
        """Share of the held weights that is zero, in [0, 1]."""
        total = sum(mask.numel() for mask in self.masks.values())
        return 1.0 - sum(int(mask.sum()) for mask in self.masks.values()) / total

    def clear(self, optimizer: torch.optim.Optimizer) -> None:
        """Zero what an optimizer remembers of removed weights; needed if it took steps before :func:`hold`."""
        for name, parameter in self._parameters.items():
            for value in optimizer.state.get(parameter, {}).values():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    value.mul_(self.masks[name])

    def check(self) -> None:
        """Raise if a removed weight is no longer zero.

        Raises:
            RuntimeError: With the weights; something wrote to them past their gradients.
        """
        alive = {}
        for name, parameter in self._parameters.items():
            if number := int(parameter.detach()[~self.masks[name]].count_nonzero()):
                alive[name] = number
        if alive:
            first = next(iter(alive))
            raise RuntimeError(
                f"{sum(alive.values())} removed weights are no longer zero, {alive[first]} of them in {first}: the "
                "optimizer had moments of them (call clear(optimizer) once, after hold), or something wrote to them"
            )

    def remove(self) -> None:
        """Hold nothing any more."""
        for hook in self._hooks:
            hook.remove()


def hold(model: nn.Module, masks: Mapping[str, torch.Tensor] | None = None) -> Held:
    """Keep the zeros of a model's weights while it is trained.

    Args:
        model: Not sharded; on its device already. Wrap it in DDP after this call or before it.
        masks: Name of a parameter -> bool tensor of its shape, True keeps; weights outside it are set to 0. None: the
            zeros of every matrix of which at least 1% are zero.

    Raises:
        ValueError: Nothing to hold, a name or shape that the model does not have, or a sharded model.
    """
    parameters = dict(model.named_parameters())
    if sharded := [name for name, value in parameters.items() if _is_sharded(value)]:
        raise ValueError(
            f"{sharded[0]} is in DeepSpeed's or FSDP's hands already: hold it before, or fine-tune it as a prunus job "
            "with method locked"
        )
    found = zeros_of(model) if masks is None else {name: mask.bool() for name, mask in masks.items()}
    for name, mask in found.items():
        if name not in parameters:
            raise ValueError(f"the model has no parameter {name}; its masks are of another model")
        if mask.shape != parameters[name].shape:
            raise ValueError(
                f"the mask of {name} has shape {tuple(mask.shape)}, the parameter {tuple(parameters[name].shape)}"
            )
    if not found:
        raise ValueError("no matrix of the model has at least 1% zeros: there is no pattern to keep")
    held = {name: parameters[name] for name in found}
    on_device = {name: mask.to(parameters[name].device) for name, mask in found.items()}
    with torch.no_grad():
        for name, parameter in held.items():
            parameter.mul_(on_device[name])
    return Held(held, on_device)


def zeros_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Masks of the matrices of which at least 1% are zero: name -> bool tensor, True where a weight is not zero."""
    found = {}
    for name, parameter in model.named_parameters():
        keep = parameter.detach() != 0
        if parameter.dim() > 1 and int(keep.sum()) <= (1.0 - _LEAST) * keep.numel():
            found[name] = keep
    return found


def _masked(mask: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    return grad.masked_fill(~mask, 0.0)  # a product would let NaN through


def _is_sharded(parameter: Any) -> bool:
    return (
        hasattr(parameter, "ds_id")
        or hasattr(parameter, "_hp_mapping")
        or type(parameter).__name__ == "DTensor"
        or hasattr(parameter, "device_mesh")
    )
