"""Fixtures of the torch side: simulated ranks and weights under plain torch."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from prunus.jobs.engine.shards import shard_view
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.masked_weights import MaskedWeights
from tests.jobs.thread_gang import CPU, run_gang

# Else a warning would come once in a process, from whichever test is the first.
torch.set_warn_always(True)


@pytest.fixture
def gang() -> Callable[[int, Callable[[Ranks], Any]], list[Any]]:
    return run_gang


@pytest.fixture
def alone() -> Ranks:
    return Ranks(0, 1, CPU)


@pytest.fixture
def masked(alone: Ranks) -> Callable[..., tuple[MaskedWeights, torch.optim.AdamW]]:
    """Weights given as tensors, under plain torch: (masked weights, their optimizer)."""

    def build(
        tensors: dict[str, torch.Tensor], *, tapped: bool = False, **adamw: Any
    ) -> tuple[MaskedWeights, torch.optim.AdamW]:
        parameters = {name: nn.Parameter(tensor.clone()) for name, tensor in tensors.items()}
        optimizer = torch.optim.AdamW(parameters.values(), **{"lr": 0.1, "weight_decay": 0.1, **adamw})
        return MaskedWeights(
            shard_view(parameters, optimizer, optimizer, 0), optimizer, alone, tapped=tapped
        ), optimizer

    return build


def step_towards(weights: MaskedWeights, optimizer: torch.optim.Optimizer, targets: Sequence[torch.Tensor]) -> None:
    """One optimizer step of least squares: every weight, removed or not, is pulled to its target."""
    loss = sum(((s.parameter - t) ** 2).sum() for s, t in zip(weights.shards, targets, strict=True))
    assert isinstance(loss, torch.Tensor)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@pytest.fixture
def train_step() -> Callable[[MaskedWeights, torch.optim.Optimizer, Sequence[torch.Tensor]], None]:
    return step_towards
