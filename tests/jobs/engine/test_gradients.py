"""The tap where all ranks hold whole weights; under ZeRO the contract suite runs it (``tests/contract``, movement)."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from prunus.jobs.engine.gradients import edit_gradient, gradient_L, overflowed
from prunus.jobs.engine.shards import Shard, shard_view
from prunus.jobs.ranks import Ranks


def shard_of(weight: nn.Parameter, engine_optimizer: Any = None) -> Shard:
    optimizer = torch.optim.SGD([weight], lr=0.1)
    (shard,) = shard_view({"w": weight}, optimizer, engine_optimizer or optimizer, 0)
    return shard


def test_the_gradient_is_flat_and_fp32_and_zeros_where_there_is_none() -> None:
    weight = nn.Parameter(torch.ones(2, 3))
    assert gradient_L(shard_of(weight)).tolist() == [0.0] * 6
    weight.grad = torch.arange(6.0).view(2, 3)
    assert gradient_L(shard_of(weight)).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_the_loss_scale_is_divided_out() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([8.0, -16.0])
    assert gradient_L(shard_of(weight, SimpleNamespace(loss_scale=8.0))).tolist() == [1.0, -2.0]


def test_an_edit_reaches_the_optimizer() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)

    def edit(run_L: torch.Tensor) -> None:
        run_L[:2] = 0.0

    edit_gradient(shard_of(weight), edit)
    assert weight.grad.tolist() == [[0.0, 0.0], [1.0, 1.0]]


def test_only_fp16_overflows(alone: Ranks) -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, float("inf")])
    assert overflowed([shard_of(weight, SimpleNamespace(loss_scale=4.0, dtype=torch.float16))], alone)
    assert not overflowed([shard_of(weight, SimpleNamespace(loss_scale=1.0, dtype=torch.bfloat16))], alone)
    weight.grad = torch.ones(2)
    assert not overflowed([shard_of(weight, SimpleNamespace(loss_scale=4.0, dtype=torch.float16))], alone)
