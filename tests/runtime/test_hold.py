"""Zeros stay zero in loops that know nothing of prunus."""

from typing import Any

import pytest
import torch
from torch import nn

from prunus.runtime.hold import hold, zeros_of


def model() -> Any:
    torch.manual_seed(0)
    net: Any = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        net[0].weight.mul_(torch.rand(8, 6) > 0.7)
    return net


def train(net: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int = 20) -> None:
    torch.manual_seed(1)
    for _ in range(num_steps):
        loss = nn.functional.cross_entropy(net(torch.randn(16, 6)), torch.randint(0, 3, (16,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


OPTIMIZERS: list[Any] = [
    lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1),
    lambda p: torch.optim.Adam(p, lr=0.05),
    lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True),
]


@pytest.mark.parametrize("make", OPTIMIZERS, ids=["adamw", "adam", "sgd"])
def test_zeros_stay_and_the_others_learn(make: Any) -> None:
    net = model()
    before = net[0].weight.detach().clone()
    held = hold(net)
    train(net, make(net.parameters()))
    held.check()
    assert torch.equal(net[0].weight == 0, before == 0)
    assert held.sparsity == float((before == 0).float().mean())
    kept = before != 0
    assert bool((net[0].weight.detach()[kept] != before[kept]).all())


def test_without_it_they_do_not_stay() -> None:
    net = model()
    masks = zeros_of(net)
    assert set(masks) == {"0.weight"}  # the second layer is dense
    train(net, torch.optim.AdamW(net.parameters(), lr=0.05))
    assert int((net[0].weight == 0).sum()) < int((~masks["0.weight"]).sum()) / 2  # units that are off learn nothing


def test_moments_from_before_are_cleared() -> None:
    net = model()
    masks = zeros_of(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.05)
    train(net, optimizer, 3)  # dense by now, and moments everywhere
    held = hold(net, masks)
    train(net, optimizer, 1)
    with pytest.raises(RuntimeError, match=r"removed weights are no longer zero, \d+ of them in 0\.weight"):
        held.check()
    held.remove()
    held = hold(net, masks)
    held.clear(optimizer)
    train(net, optimizer, 5)
    held.check()


def test_a_hold_that_is_removed_holds_no_more() -> None:
    net = model()
    held = hold(net)
    held.remove()
    train(net, torch.optim.SGD(net.parameters(), lr=0.05))
    with pytest.raises(RuntimeError, match="no longer zero"):
        held.check()


def test_frozen_layers_are_held_too_and_nan_brings_nothing_back() -> None:
    net = model()
    net[2].requires_grad_(False)
    with torch.no_grad():
        net[2].weight[0, 0] = 0.0
    held = hold(net)
    assert set(held.masks) == {"0.weight", "2.weight"}
    net(torch.full((1, 6), float("nan"))).sum().backward()
    assert not net[0].weight.grad[~held.masks["0.weight"]].any()
    train(net, torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.05))
    held.check()


def test_what_cannot_be_held_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no pattern to keep"):
        hold(nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"no parameter 1\.weight"):
        hold(nn.Linear(3, 3), {"1.weight": torch.ones(3, 3)})
    with pytest.raises(ValueError, match=r"shape \(2, 2\), the parameter \(3, 3\)"):
        hold(nn.Linear(3, 3), {"weight": torch.ones(2, 2)})
    net = nn.Linear(3, 3)
    net.weight.ds_id = 1  # type: ignore[assignment]
    with pytest.raises(ValueError, match="weight is in DeepSpeed's or FSDP's hands"):
        hold(net)
