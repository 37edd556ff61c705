"""A mask put into force stays in force under AdamW with weight decay, and what breaks it is noticed."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from prunus.jobs.engine.shards import Shard, shard_view
from prunus.jobs.errors import JobError
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.arithmetic import Masks, pack
from prunus.jobs.sparsity.masked_weights import MaskedWeights

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
    weights._grad_masks = {}
    train_step(weights, optimizer, [torch.full((6, 4), 3.0), torch.ones(5, 3)])
    with pytest.raises(JobError, match="12 weights of first are not zero outside the mask in the fp32 master"):
        weights.check()


def test_a_mask_that_is_not_held_zeroes_the_weights_once_and_lets_them_move(masked: Build, train_step: Step) -> None:
    weights, optimizer = trained(masked, train_step)
    change = weights.set_masks(half(), hold=False)
    parameter, gone = weights.shards[0].parameter, ~half()["first"]
    assert (change.flipped, weights.sparsity, weights.held) == (12 / 39, 12 / 39, False)
    assert torch.count_nonzero(parameter[gone]) == torch.count_nonzero(optimizer.state[parameter]["exp_avg"][gone]) == 0
    weights.check()
    train_step(weights, optimizer, [torch.full((6, 4), 3.0), torch.ones(5, 3)])
    assert torch.count_nonzero(parameter[gone]) == 12
    weights.check()  # of such a mask only that all ranks have the same


def test_moments_can_be_left_alone(masked: Build, train_step: Step) -> None:
    weights, optimizer = trained(masked, train_step)
    parameter = weights.shards[0].parameter
    before = {key: optimizer.state[parameter][key].clone() for key in ("exp_avg", "exp_avg_sq")}
    weights.set_masks(half(), moments=(), hold=False)
    assert torch.count_nonzero(parameter[~half()["first"]]) == 0
    assert all(torch.equal(optimizer.state[parameter][key], moment) for key, moment in before.items())
    with pytest.raises(AssertionError, match="cannot be held"):
        weights.set_masks(half(), moments=())


def test_runs_take_the_same_options(masked: Build, train_step: Step) -> None:
    weights, optimizer = trained(masked, train_step)
    moment = optimizer.state[weights.shards[0].parameter]["exp_avg"]
    before = moment.clone()
    weights.set_local([mask.flatten() for mask in half().values()], moments=(), hold=False)
    assert not weights.held
    assert torch.equal(moment, before)
    assert all(torch.equal(weights.masks[name], mask) for name, mask in half().items())


def test_a_mask_held_after_one_that_was_not_holds(masked: Build, train_step: Step) -> None:
    weights, optimizer = trained(masked, train_step)
    weights.set_masks(half(), moments=(), hold=False)
    for _ in range(3):
        train_step(weights, optimizer, [torch.full((6, 4), 3.0), torch.ones(5, 3)])
    weights.set_masks(half())
    for _ in range(3):
        train_step(weights, optimizer, [torch.full((6, 4), 3.0), torch.ones(5, 3)])
    weights.check()
    assert weights.held
    assert torch.count_nonzero(weights.shards[0].parameter[~half()["first"]]) == 0


def test_masked_weights_are_zero_inside_and_bit_equal_after(masked: Build, train_step: Step) -> None:
    weights, optimizer = trained(masked, train_step)
    weights.set_masks(half(), moments=(), hold=False)
    train_step(weights, optimizer, [torch.full((6, 4), 3.0), torch.ones(5, 3)])
    parameter = weights.shards[0].parameter
    odd = torch.tensor([-0.0, -1e-40, float("nan"), float("inf")])
    parameter.data[0, 1], parameter.data[0, 3], parameter.data[1, 1], parameter.data[1, 3] = odd
    before = [shard.parameter.detach().clone() for shard in weights.shards]
    with weights.masked():
        assert torch.count_nonzero(parameter[~half()["first"]]) == 0
        assert torch.equal(parameter[half()["first"]], before[0][half()["first"]])
        assert torch.equal(weights.shards[1].parameter, before[1])
    for shard, old in zip(weights.shards, before, strict=True):
        assert torch.equal(shard.parameter.detach().view(torch.int32), old.view(torch.int32))
    with pytest.raises(KeyError), weights.masked():
        raise KeyError
    assert torch.equal(parameter.detach().view(torch.int32), before[0].view(torch.int32))


def test_masked_leaves_held_weights_alone(masked: Build, train_step: Step) -> None:
    weights, _ = trained(masked, train_step)
    weights.set_masks(half())
    before = weights.shards[0].parameter.detach().clone()
    with weights.masked():
        assert torch.equal(weights.shards[0].parameter, before)
    assert torch.equal(weights.shards[0].parameter, before)


class _WithCopy(Shard):
    """A shard with a bf16 copy of its own beside the master, as ZeRO has."""

    def master_L(self) -> torch.Tensor:
        return self.engine_optimizer["master"]

    def copy_L(self) -> torch.Tensor:
        return self.engine_optimizer["copy"]


def test_the_low_precision_copy_is_zero_inside_and_bit_equal_after(alone: Ranks) -> None:
    master = torch.randn(24, generator=torch.Generator().manual_seed(2))
    parts = {"master": master, "copy": master.bfloat16()}
    parameter = torch.nn.Parameter(parts["copy"].view(6, 4))
    optimizer = torch.optim.AdamW([parameter])
    shard = _WithCopy("first", 0, (6, 4), 0, 24, False, parameter, optimizer, parts)
    weights = MaskedWeights([shard], None, alone)
    weights.set_masks({"first": half()["first"]}, moments=(), hold=False)
    gone = ~half()["first"].flatten()
    assert torch.count_nonzero(parts["copy"][gone]) == 0
    master[gone] = -0.3
    parts["copy"].copy_(master)
    before = {name: values.clone() for name, values in parts.items()}
    with weights.masked():
        assert torch.count_nonzero(master[gone]) == torch.count_nonzero(parts["copy"][gone]) == 0
        assert torch.equal(parts["copy"][~gone], before["copy"][~gone])
    assert all(torch.equal(parts[name], values) for name, values in before.items())


def test_ranks_with_different_masks_that_are_not_held_are_noticed(gang: Callable[..., list[Any]]) -> None:
    def act(ranks: Ranks) -> None:
        parameter = torch.nn.Parameter(torch.ones(4))
        optimizer = torch.optim.AdamW([parameter])
        weights = MaskedWeights(shard_view({"w": parameter}, optimizer, optimizer, ranks.rank), optimizer, ranks)
        with pytest.raises(JobError, match="ranks hold 2 different masks"):
            weights.set_masks({"w": torch.tensor([True, True, True, ranks.rank == 0])}, hold=False)

    gang(2, act)


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
        whole, packed = weights._whole(shard, keep[begin:end])
        assert torch.equal(packed, pack(keep))
        return whole.tolist()

    assert gang(2, act) == [keep.tolist()] * 2


def test_iou_with_the_mask_before_is_given_for_each_weight(masked: Build) -> None:
    weights, _ = masked(tensors())
    weights.set_masks(half())
    assert weights.iou_by_weight() == {"first": 0.5, "second": 1.0}


def test_masks_stay_the_same_tensors_and_what_was_given_is_not_kept(masked: Build) -> None:
    weights, _ = masked(tensors())
    own, given = dict(weights.masks), half()
    weights.set_masks(given)
    assert all(weights.masks[name] is mask and mask is not given[name] for name, mask in own.items())
    given["first"][:] = False
    assert weights.sparsity_by_weight() == {"first": 0.5, "second": 0.0}
    weights.set_masks(weights.masks)
    assert weights.iou_by_weight() == {"first": 1.0, "second": 1.0}


def test_each_mask_is_in_force_before_the_next_is_asked_for(masked: Build) -> None:
    weights, _ = masked(tensors())

    def keep() -> Iterator[torch.Tensor]:
        yield half()["first"].flatten()
        assert torch.count_nonzero(weights.shards[0].parameter) == 12
        yield half()["second"].flatten()

    weights.set_local(keep())
    with pytest.raises(ValueError, match="zip"):
        weights.set_local([half()["first"].flatten()])


def test_hidden_values_change_places_with_the_weights(masked: Build) -> None:
    weights, _ = masked(tensors())
    dense = [shard.parameter.detach().clone() for shard in weights.shards]
    hidden = [torch.zeros(24), torch.zeros(15)]
    weights.set_local([mask.flatten() for mask in half().values()], hidden=hidden)
    assert torch.equal(hidden[0].view(6, 4), torch.where(half()["first"], 0.0, dense[0]))
    weights.set_local([torch.ones(24, dtype=torch.bool), torch.zeros(15, dtype=torch.bool)], hidden=hidden)
    assert torch.equal(weights.shards[0].parameter, dense[0])
    assert torch.count_nonzero(hidden[0]) == torch.count_nonzero(weights.shards[1].parameter) == 0
    assert torch.equal(hidden[1].view(5, 3), dense[1])


def test_a_moment_that_is_no_number_is_cleared(masked: Build, train_step: Step) -> None:
    weights, optimizer = trained(masked, train_step)
    moment = optimizer.state[weights.shards[0].parameter]["exp_avg_sq"]
    moment[0, 1], moment[0, 3] = float("inf"), float("nan")
    weights.set_masks(half())
    weights.check()


class _NotInPlace(Shard):
    """A shard whose master comes as a copy, as of an optimizer that keeps it on a disk."""

    def master_L(self) -> torch.Tensor:
        return self.parameter.detach().view(-1).clone()


def test_a_master_that_cannot_be_changed_in_place_is_noticed(alone: Ranks) -> None:
    parameter = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.AdamW([parameter])
    weights = MaskedWeights([_NotInPlace("w", 0, (4,), 0, 4, True, parameter, optimizer, None)], None, alone)
    with pytest.raises(JobError, match="of w a copy of the master or of a moment was masked"):
        weights.set_masks({"w": torch.tensor([True, False, True, True])})


def test_a_copy_that_the_engine_leaves_alive_is_noticed_at_once(alone: Ranks) -> None:
    class Forgetful:
        def update_lp_params(self) -> None:
            """What should write the copies anew."""

    parts = {"master": torch.ones(24), "copy": torch.ones(24, dtype=torch.bfloat16)}
    parameter = torch.nn.Parameter(parts["copy"].view(6, 4))
    optimizer = torch.optim.AdamW([parameter])
    shard = _WithCopy("first", 0, (6, 4), 0, 24, False, parameter, optimizer, parts)
    for hold in (True, False):
        with pytest.raises(JobError, match="12 weights of first are not zero outside the mask in the low-precision"):
            MaskedWeights([shard], Forgetful(), alone).set_masks({"first": half()["first"]}, hold=hold)
