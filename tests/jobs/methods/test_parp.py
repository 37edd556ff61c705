"""PARP on weights that can be read: what is zeroed, what learns meanwhile, what is measured, what is left."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from prunus.configs.methods.parp import Parp
from prunus.configs.schedules import is_parp_update
from prunus.jobs.methods import Start
from prunus.jobs.methods.parp import ParpMethod
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.arithmetic import Masks
from prunus.jobs.sparsity.masked_weights import MaskedWeights
from tests.jobs.methods.started import started

Build = Callable[..., tuple[MaskedWeights, torch.optim.AdamW]]
Step = Callable[..., None]
CPU = torch.device("cpu")


def make(
    masked: Build, tensors: dict[str, torch.Tensor], num_steps: int = 6, given: Masks | None = None, **spec: Any
) -> tuple[ParpMethod, torch.optim.AdamW]:
    options: dict[str, Any] = {"final_sparsity": 0.5, "update_every": 2}
    weights, optimizer = masked(tensors)
    method = started(Parp(**{**options, **spec}), Start(weights, num_steps, Ranks(0, 1, CPU), given))
    assert isinstance(method, ParpMethod)
    return method, optimizer


def values(method: ParpMethod, index: int = 0) -> list[float]:
    return method.weights.shards[index].parameter.detach().flatten().tolist()


def test_the_smallest_of_all_tensors_go_and_stay_free_to_move(masked: Build, train_step: Step) -> None:
    """One pool: of 4 + 2 weights the 3 smallest are -0.5, 1 and 0.25."""
    tensors = {"w": torch.tensor([[-4.0, -0.5], [3.0, 1.0]]), "b": torch.tensor([0.25, 2.0])}
    method, optimizer = make(masked, tensors)
    method.first_masks()
    assert values(method) == [-4.0, 0.0, 3.0, 0.0]
    assert values(method, 1) == [0.0, 2.0]
    train_step(method.weights, optimizer, [torch.full((2, 2), 9.0), torch.full((2,), 9.0)])
    assert all(value != 0.0 for value in values(method) + values(method, 1))
    assert method.weights.sparsity == 0.5  # of the mask


def test_a_weight_that_grew_while_adjusting_takes_the_place_of_one_that_shrank(masked: Build) -> None:
    method, _ = make(masked, {"w": torch.tensor([1.0, 2.0, 3.0, 4.0])})
    method.first_masks()
    assert values(method) == [0.0, 0.0, 3.0, 4.0]
    method.weights.shards[0].parameter.data.copy_(torch.tensor([-3.5, 0.1, 0.2, 4.0]))
    assert method.after_step(1) is None
    change = method.after_step(2)
    assert values(method) == [-3.5, 0.0, 0.0, 4.0]
    assert change is not None
    assert change.flipped == 2 / 4


def test_moments_survive_a_pruning_unless_told_otherwise_and_never_the_last(masked: Build, train_step: Step) -> None:
    for reset in (False, True):
        method, optimizer = make(masked, {"w": torch.tensor([1.0, 2.0, 3.0, 4.0])}, reset_moments=reset)
        method.first_masks()
        train_step(method.weights, optimizer, [torch.tensor([0.0, 0.0, 3.0, 5.0])])
        train_step(method.weights, optimizer, [torch.tensor([1.0, 1.0, 3.0, 5.0])])
        method.after_step(2)
        moments = next(iter(method.weights.shards[0].moments_L()))
        removed = ~method.weights.masks["w"]
        assert bool(moments[removed].count_nonzero() == 0) == reset
        method.after_step(6)
        assert all(m[~method.weights.masks["w"]].count_nonzero() == 0 for m in method.weights.shards[0].moments_L())


def test_after_the_last_step_the_zeros_are_held(masked: Build, train_step: Step) -> None:
    method, optimizer = make(masked, {"w": torch.tensor([1.0, 2.0, 3.0, 4.0])}, num_steps=5)
    method.first_masks()
    for step in range(1, 6):
        train_step(method.weights, optimizer, [torch.tensor([9.0, 9.0, 3.0, 4.0])])
        method.after_step(step)
    before = values(method)
    assert before.count(0.0) == 2
    train_step(method.weights, optimizer, [torch.full((4,), 9.0)])
    assert [a for a, b in zip(values(method), before, strict=True) if b == 0.0] == [0.0, 0.0]
    method.weights.check()


def test_no_pruning_between_is_zero_then_fine_tune_then_prune(masked: Build, train_step: Step) -> None:
    """n = infinity (parp.md, section 8), by plain torch beside it."""
    start, target = torch.tensor([0.1, -2.0, 3.0, 0.4]), torch.tensor([1.0, 1.0, -1.0, -5.0])
    method, optimizer = make(masked, {"w": start}, num_steps=7, update_every=1000)
    method.first_masks()
    plain = torch.nn.Parameter(torch.where(start.abs() > 0.4, start, 0.0))
    adamw = torch.optim.AdamW([plain], lr=0.1, weight_decay=0.1)
    for step in range(1, 8):
        train_step(method.weights, optimizer, [target])
        method.after_step(step)
        loss = ((plain - target) ** 2).sum()
        adamw.zero_grad()
        loss.backward()
        adamw.step()
    expected = plain.detach().clone()
    expected[expected.abs().argsort()[:2]] = 0.0
    assert values(method) == expected.tolist()


def test_what_is_evaluated_is_mask_times_weights_and_training_goes_on_as_if_nothing_was(
    masked: Build, train_step: Step
) -> None:
    method, optimizer = make(masked, {"w": torch.tensor([1.0, 2.0, 3.0, 4.0])})
    method.first_masks()
    train_step(method.weights, optimizer, [torch.full((4,), 9.0)])
    regrown = values(method)
    with method.evaluating():
        assert values(method) == [0.0, 0.0, regrown[2], regrown[3]]
    assert values(method) == regrown


def test_a_mask_from_elsewhere_is_the_first_one_and_is_adjusted(masked: Build) -> None:
    given = {"w": torch.tensor([True, True, False, False])}
    method, _ = make(masked, {"w": torch.tensor([1.0, 2.0, 3.0, 4.0])}, given=given)
    method.first_masks()
    assert values(method) == [1.0, 2.0, 0.0, 0.0]
    method.weights.shards[0].parameter.data.copy_(torch.tensor([1.0, 2.0, 0.5, 1.5]))
    method.after_step(2)
    assert values(method) == [0.0, 2.0, 0.0, 1.5]


def test_a_mask_of_another_sparsity_than_the_first_is_told(masked: Build, caplog: pytest.LogCaptureFixture) -> None:
    given = {"w": torch.tensor([True, True, False, False])}
    for final, told in ((0.5, False), (0.75, True)):
        make(masked, {"w": torch.ones(4)}, given=given, final_sparsity=final)[0].first_masks()
        assert ("method.mask removes 0.50 of the weights" in caplog.text) is told
    assert "after 2 steps, goes on from 0.75" in caplog.text


def test_one_threshold_per_tensor_where_asked(masked: Build) -> None:
    tensors = {"small": torch.tensor([0.1, 0.2]), "large": torch.tensor([10.0, 20.0])}
    method, _ = make(masked, tensors, scope="per_layer")
    method.first_masks()
    assert values(method) == [0.0, pytest.approx(0.2)]
    assert values(method, 1) == [0.0, 20.0]


@pytest.mark.parametrize(
    ("initial", "window", "expected"),
    [
        (None, (0.0, 1.0), {0: 0.9, 30: 0.9, 100: 0.9}),
        (0.7, (0.0, 1.0), {0: 0.7, 25: 0.75, 50: 0.8, 100: 0.9}),  # (s - s0) / (total / interval) per pruning
        (0.7, (0.0, 0.5), {0: 0.7, 25: 0.8, 50: 0.9, 75: 0.9}),
    ],
)
def test_sparsity_grows_linearly_and_stops_at_the_target(
    initial: float | None, window: tuple[float, float], expected: dict[int, float]
) -> None:
    spec = Parp(final_sparsity=0.9, initial_sparsity=initial, growth_window=window)
    for step, sparsity in expected.items():
        assert spec.sparsity_at(step, 100) == pytest.approx(sparsity, abs=1e-12)


def test_prunings_are_every_n_steps_and_after_the_last() -> None:
    assert [step for step in range(12) if is_parp_update(step, 11, 4)] == [0, 4, 8, 11]


def test_sparsity_cannot_shrink() -> None:
    with pytest.raises(ValueError, match=r"initial_sparsity 0\.9 is above final_sparsity 0\.5"):
        Parp(final_sparsity=0.5, initial_sparsity=0.9)
    with pytest.raises(ValueError, match="growth_window begins after it ends"):
        Parp(final_sparsity=0.5, growth_window=(0.6, 0.2))


def test_biases_are_in_the_pool_as_in_the_paper() -> None:
    assert Parp(final_sparsity=0.5).prunable.biases
