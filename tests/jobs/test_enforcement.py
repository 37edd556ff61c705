"""A mask put into force stays in force under AdamW with weight decay, and what breaks it is noticed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from jobs.enforcement import MaskedWeights
from jobs.errors import JobError
from jobs.masks import Masks
from jobs.ranks import Ranks
from jobs.shards import Shard, shard_view

Build = Callable[..., tuple[MaskedWeights, torch.optim.AdamW]]
Step = Callable[..., None]


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"first": torch.randn(6, 4, generator=generator), "second": torch.randn(5, 3, generator=generator)}


def half() -> Masks:
    return {"first": (torch.arange(24) % 2 == 0).view(6, 4), "second": torch.ones(5, 3, dtype=torch.bool)}


def trained(masked: Build, train_step: Step) -> tuple[MaskedWeights, torch.optim.AdamW]:
    """Ten dense steps, so that every moment is alive."""
    weights, optimizer = masked(tensors())
    for _ in range(10):
        train_step(weights, optimizer, [torch.ones(6, 4), torch.ones(5, 3)])
    return weights, optimizer


def test_weights_and_both_moments_are_zero_outside_a_new_mask(masked: Build, train_step: Step) -> None:
    weights, optimizer = trained(masked, train_step)
    before = weights.shards[0].parameter.detach().clone()
    change = weights.set_masks(half())
    assert (change.flipped, change.iou_kept) == (12 / 39, 27 / 39)
    state = optimizer.state[weights.shards[0].parameter]
    for values in (weights.shards[0].parameter, state["exp_avg"], state["exp_avg_sq"]):
        assert torch.count_nonzero(values[~half()["first"]]) == 0
        assert torch.count_nonzero(values[half()["first"]]) == 12
    kept = half()["first"]
    assert torch.equal(weights.shards[0].parameter[kept], before[kept])
    assert weights.sparsity == pytest.approx(12 / 39)
    assert weights.num_weights == 39
    assert weights.sparsity_by_weight() == {"first": 0.5, "second": 0.0}


def test_zeros_stay_zero_for_50_steps_and_the_rest_is_trained(masked: Build, train_step: Step) -> None:
    weights, optimizer = trained(masked, train_step)
    weights.set_masks(half())
    kept = half()["first"]
    before = weights.shards[0].parameter.detach().clone()
    for _ in range(50):
        train_step(weights, optimizer, [torch.full((6, 4), 3.0), torch.ones(5, 3)])
    after = weights.shards[0].parameter.detach()
    assert torch.count_nonzero(after[~kept]) == 0
    assert (after[kept] - before[kept]).abs().min() > 0.1
    weights.check()


def test_without_the_hook_the_zeros_are_lost(masked: Build, train_step: Step) -> None:
    """The hook is what holds them: this is how the test above would fail."""
    weights, optimizer = trained(masked, train_step)
    weights.set_masks(half())
    weights.release_gradients()
    train_step(weights, optimizer, [torch.full((6, 4), 3.0), torch.ones(5, 3)])
    with pytest.raises(JobError, match="12 weights of first are not zero outside the mask in the fp32 master"):
        weights.check()


def test_a_new_mask_after_a_release_holds_again(masked: Build, train_step: Step) -> None:
    weights, optimizer = trained(masked, train_step)
    weights.release_gradients()
    weights.set_masks(half())
    train_step(weights, optimizer, [torch.full((6, 4), 3.0), torch.ones(5, 3)])
    weights.check()


def test_a_weight_that_comes_back_is_trained_again_from_zero_moments(masked: Build, train_step: Step) -> None:
    weights, optimizer = trained(masked, train_step)
    weights.set_masks(half())
    whole = {name: torch.ones_like(mask) for name, mask in half().items()}
    change = weights.set_masks(whole)
    assert (change.flipped, change.iou_kept) == (12 / 39, 27 / 39)
    assert torch.count_nonzero(optimizer.state[weights.shards[0].parameter]["exp_avg"][~half()["first"]]) == 0
    train_step(weights, optimizer, [torch.full((6, 4), 3.0), torch.ones(5, 3)])
    assert torch.count_nonzero(weights.shards[0].parameter) == 24


@pytest.mark.parametrize(("place", "named"), [("exp_avg", "moment 0"), ("exp_avg_sq", "moment 1")])
def test_a_moment_left_alive_is_noticed(masked: Build, train_step: Step, place: str, named: str) -> None:
    weights, optimizer = trained(masked, train_step)
    weights.set_masks(half())
    optimizer.state[weights.shards[0].parameter][place][0, 1] = 1e-30
    with pytest.raises(JobError, match=f"1 weights of first are not zero outside the mask in the {named}"):
        weights.check()


def test_a_revived_weight_is_noticed(masked: Build) -> None:
    weights, _ = masked(tensors())
    weights.set_masks(half())
    weights.shards[0].parameter.data[0, 1] = -1e-40  # a denormal is not zero
    with pytest.raises(JobError, match="1 weights of first are not zero outside the mask in the fp32 master"):
        weights.check()


def test_ranks_with_different_masks_are_noticed_by_all(gang: Callable[..., list[Any]]) -> None:
    def act(ranks: Ranks) -> str:
        parameter = torch.nn.Parameter(torch.ones(4))
        optimizer = torch.optim.AdamW([parameter])
        weights = MaskedWeights(shard_view({"w": parameter}, optimizer, optimizer, ranks.rank), optimizer, ranks)
        with pytest.raises(JobError) as noticed:
            weights.set_masks({"w": torch.tensor([True, True, True, ranks.rank == 0])})
        return str(noticed.value)

    assert gang(2, act) == ["ranks hold 2 different masks after a mask update"] * 2


def test_runs_of_several_ranks_are_put_together_to_one_mask(gang: Callable[..., list[Any]]) -> None:
    """Sharded as under ZeRO: 11 weights cut at 5, so that a byte of the packed mask belongs to two ranks."""
    keep = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0], dtype=torch.bool)

    def act(ranks: Ranks) -> list[bool]:
        begin, end = [(0, 5), (5, 11)][ranks.rank]
        parameter = torch.nn.Parameter(torch.ones(11))
        optimizer = torch.optim.AdamW([parameter])
        shard = Shard("w", 0, (11,), begin, end - begin, False, parameter, optimizer, optimizer)
        weights = MaskedWeights([shard], optimizer, ranks)
        whole = weights._whole(shard, keep[begin:end])
        return whole.tolist()

    assert gang(2, act) == [keep.tolist()] * 2


def test_iou_with_an_earlier_mask_is_given_for_each_weight(masked: Build) -> None:
    weights, _ = masked(tensors())
    before = weights.masks
    weights.set_masks(half())
    assert weights.iou_by_weight(before) == {"first": 0.5, "second": 1.0}
