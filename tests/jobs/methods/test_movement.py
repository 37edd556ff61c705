"""Movement pruning on weights that can be read: the reference's schedule, dS = G * W, how many stay, who comes back."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from prunus.configs.methods.movement import Movement
from prunus.jobs.errors import CheckpointError, PruningError
from prunus.jobs.methods import Start
from prunus.jobs.methods.movement import MovementMethod, logit
from prunus.jobs.models.anatomy import anatomy_of
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.masked_weights import MaskedWeights
from tests.jobs.methods.started import started
from tests.jobs.tiny import bert

Build = Callable[..., tuple[MaskedWeights, torch.optim.AdamW]]
CPU = torch.device("cpu")
ALWAYS = (0.1, 0.1)
"""Growth at once: of 10 steps, the target holds from the first one on."""


def make(masked: Build, tensors: dict[str, torch.Tensor], num_steps: int = 10, **spec: Any) -> MovementMethod:
    options: dict[str, Any] = {"growth_window": ALWAYS}
    if spec.get("variant", "hard") == "hard":
        options["final_sparsity"] = 0.5
    weights, _ = masked(tensors, tapped=True)
    method = started(Movement(**{**options, **spec}), Start(weights, num_steps, Ranks(0, 1, CPU), None))
    assert isinstance(method, MovementMethod)
    return method


def values(method: MovementMethod, index: int = 0) -> list[float]:
    return method.weights.shards[index].parameter.detach().flatten().tolist()


def give_gradients(method: MovementMethod, *grads: list[float]) -> None:
    """What a backward pass would leave."""
    for shard, grad in zip(method.weights.shards, grads, strict=True):
        shard.parameter.grad = torch.tensor(grad).view(shard.shape)


# The reference's tables: T = 10,000 steps, warm-up 1,000, initial 1, final 2 lengths of the warm-up.
REFERENCE = {"growth_window": (0.1, 0.8)}


@pytest.mark.parametrize(
    ("step", "kept"),
    [(1000, 1.0), (1001, 0.999636), (2750, 0.508594), (4500, 0.25625), (6250, 0.163281), (8000, 0.15), (9999, 0.15)],
)
def test_the_kept_share_follows_the_references_table(step: int, kept: float) -> None:
    method = Movement(final_sparsity=0.85, **REFERENCE)
    sparsity = method.sparsity_at(step, 10_000)
    assert sparsity is not None
    assert 1.0 - sparsity == pytest.approx(kept, abs=5e-7)


@pytest.mark.parametrize(
    ("step", "threshold", "penalty"),
    [(1000, 0.0, 0.0), (2750, 0.0578125, 231.25), (4500, 0.0875, 350.0), (6250, 0.0984375, 393.75), (8000, 0.1, 400.0)],
)
def test_threshold_and_penalty_follow_the_references_table(step: int, threshold: float, penalty: float) -> None:
    method = Movement(variant="soft", **REFERENCE)
    assert method.threshold_at(step, 10_000) == pytest.approx(threshold, abs=1e-12)
    assert method.penalty_at(step, 10_000) == pytest.approx(penalty, abs=1e-9)


def test_a_score_moves_against_gradient_times_weight(masked: Build) -> None:
    """By AdamW's first step every score moves by its learning rate against the sign of dS = G W."""
    method = make(masked, {"w": torch.tensor([1.0, -2.0, 3.0, -4.0])}, score_lr=0.01)
    give_gradients(method, [0.5, 0.5, -0.25, -0.25])  # dS = 0.5, -1, -0.75, 1
    method.read_gradients(0)
    assert method.scores[0].tolist() == pytest.approx([-0.01, 0.01, 0.01, -0.01], rel=1e-5)


def test_scores_gradient_is_that_of_a_mask_that_autograd_differentiates(masked: Build) -> None:
    """Straight through: for y = sum(c (M W)) with M a leaf, dL/dM = c W, of removed weights too."""
    torch.manual_seed(0)
    weight, factor = torch.randn(6, 5), torch.randn(6, 5)
    method = make(masked, {"w": weight}, growth_window=ALWAYS)
    method.after_step(1)  # all scores are equal: the first half goes
    seen: list[torch.Tensor] = []
    method._optimizer.register_step_pre_hook(lambda *_: seen.append(method.scores[0].grad.clone()))  # type: ignore[union-attr]
    mask = method.weights.masks["w"].float().requires_grad_(True)
    loss = (factor * (mask * weight)).sum() ** 2
    loss.backward()
    # What the engine has: the gradient with respect to W' = M W.
    shown = (mask.detach() * weight).requires_grad_(True)
    ((factor * shown).sum() ** 2).backward()
    give_gradients(method, shown.grad.flatten().tolist())  # type: ignore[union-attr]
    method.read_gradients(0)
    torch.testing.assert_close(seen[0].view(6, 5), mask.grad, rtol=1e-6, atol=1e-6)
    assert bool((~method.weights.masks["w"]).any()) and bool(seen[0].view(6, 5)[~method.weights.masks["w"]].all())


def test_equal_scores_go_by_position_and_the_highest_stay(masked: Build) -> None:
    method = make(masked, {"w": torch.tensor([1.0, 2.0, 3.0, 4.0])})
    method.first_masks()
    assert values(method) == [1.0, 2.0, 3.0, 4.0]  # growth has not begun
    method.after_step(1)
    assert values(method) == [0.0, 0.0, 3.0, 4.0]
    method.scores[0].copy_(torch.tensor([0.5, -0.1, -0.2, 0.1]))
    method.after_step(1)
    assert values(method) == [1.0, 0.0, 0.0, 4.0]  # the first is back with the value that it had


@pytest.mark.parametrize("num", [10, 101, 1000])
@pytest.mark.parametrize("kept", [0.15, 0.03])
def test_exactly_the_asked_share_stays(masked: Build, num: int, kept: float) -> None:
    torch.manual_seed(num)
    method = make(masked, {"w": torch.randn(num)}, final_sparsity=1.0 - kept)
    method.scores[0].copy_(torch.randn(num) - 5.0)  # all negative
    method.after_step(1)
    stays = method.weights.masks["w"]
    assert int(stays.sum()) == num - math.floor((1.0 - kept) * num + 1e-9)
    assert method.scores[0][stays].min() > method.scores[0][~stays].max()


def test_a_global_pool_takes_more_from_the_matrix_with_the_lower_scores(masked: Build) -> None:
    tensors = {"a": torch.ones(4), "b": torch.ones(4)}
    method = make(masked, tensors, scope="global")
    method.scores[0].copy_(torch.tensor([-3.0, -2.0, -1.0, 2.0]))
    method.scores[1].copy_(torch.tensor([0.0, 1.0, 3.0, -0.5]))
    method.after_step(1)
    assert method.weights.masks["a"].tolist() == [False, False, False, True]
    assert method.weights.masks["b"].tolist() == [True, True, True, False]


def test_a_removed_weight_rests_and_its_value_is_kept(masked: Build) -> None:
    weights, optimizer = masked({"w": torch.tensor([1.0, 2.0, 3.0, 4.0])}, tapped=True)
    spec = Movement(final_sparsity=0.5, growth_window=ALWAYS)
    method = started(spec, Start(weights, 10, Ranks(0, 1, CPU), None))
    method.after_step(1)
    for step in range(1, 4):
        give_gradients(method, [1.0, 1.0, 1.0, 1.0])  # type: ignore[arg-type]
        method.read_gradients(step)
        weights.mask_gradients()
        optimizer.step()
    weights.check()
    assert values(method)[:2] == [0.0, 0.0] and values(method)[2:] != [3.0, 4.0]  # type: ignore[arg-type]
    method.scores[0].copy_(torch.tensor([1.0, 1.0, 0.0, 0.0]))  # type: ignore[attr-defined]
    method.after_step(4)
    assert values(method) == [1.0, 2.0, 0.0, 0.0]  # type: ignore[arg-type]


def test_soft_keeps_what_is_above_the_threshold(masked: Build) -> None:
    """sigmoid(S) > 0.1 is S > -2.1972."""
    method = make(masked, {"w": torch.ones(4)}, variant="soft")
    method.scores[0].copy_(torch.tensor([-2.1973, -2.1971, 0.0, -9.0]))
    method.after_step(1)
    assert method.weights.masks["w"].tolist() == [False, True, True, False]
    assert logit(0.1) == pytest.approx(-2.1972, abs=5e-5)
    assert logit(0.0) == -math.inf


def test_soft_keeps_exactly_the_least_share_where_all_scores_are_low(masked: Build) -> None:
    """int(0.005 x 1,000) + 1 = 6, also of equal scores: there, kthvalue and > keep none."""
    method = make(masked, {"w": torch.ones(1000)}, variant="soft")
    method.scores[0].fill_(-7.0)
    method.after_step(1)
    assert method.weights.masks["w"].nonzero().view(-1).tolist() == [994, 995, 996, 997, 998, 999]


def test_the_penalty_pushes_by_the_derivative_of_the_mean_sigmoid(masked: Build) -> None:
    """At S = 0 the mean of sigmoid(S) over matrices is 0.5; its derivative for one of n scores of m matrices is
    0.25 / (n m): with n = 4, m = 2 and a weight of 400 it is 12.5."""
    method = make(masked, {"a": torch.ones(4), "b": torch.ones(4)}, variant="soft")
    assert torch.stack([score.sigmoid().mean() for score in method.scores]).mean().item() == 0.5
    seen: list[torch.Tensor] = []
    method._optimizer.register_step_pre_hook(lambda *_: seen.extend(s.grad.clone() for s in method.scores))  # type: ignore[union-attr]
    give_gradients(method, [0.0] * 4, [1.0] * 4)
    method.read_gradients(1)
    assert seen[0].tolist() == [12.5] * 4
    assert seen[1].tolist() == [13.5] * 4


def test_masks_change_from_where_growth_begins_at_every_update_at_its_end_and_at_last() -> None:
    method = Movement(final_sparsity=0.5, growth_window=(0.2, 0.55), update_every=5)  # steps 4 to 11
    steps = [step for step in range(21) if method.updates_after(step, 20)]
    assert steps == [4, 9, 11, 14, 19, 20]


def test_the_score_rate_follows_the_schedule_of_the_learning_rate(masked: Build) -> None:
    weights, _ = masked({"w": torch.ones(2)}, tapped=True)
    start = Start(weights, 10, Ranks(0, 1, CPU), None, lr_factor=lambda step: step / 10)
    method = started(Movement(final_sparsity=0.5, score_lr=0.2), start)
    give_gradients(method, [1.0, -1.0])  # type: ignore[arg-type]
    method.read_gradients(5)
    assert method.scores[0].tolist() == pytest.approx([-0.1, 0.1], rel=1e-5)  # type: ignore[attr-defined]


def test_embeddings_are_frozen_unless_told_otherwise() -> None:
    frozen, free = bert(0), bert(0)
    spec = Movement(final_sparsity=0.5)
    assert MovementMethod(spec).prepare(frozen, anatomy_of(frozen)) == []
    spec = Movement(final_sparsity=0.5, freeze_embeddings=False)
    assert MovementMethod(spec).prepare(free, anatomy_of(free)) == []
    still = {name for name, parameter in frozen.named_parameters() if not parameter.requires_grad}
    tables = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    assert still == {f"bert.embeddings.{table}.weight" for table in tables}
    assert all(parameter.requires_grad for parameter in free.parameters())


def test_state_goes_on_where_it_was(masked: Build) -> None:
    torch.manual_seed(0)
    tensors = {"w": torch.randn(40)}
    grads = [torch.randn(40).tolist() for _ in range(6)]

    def run(method: MovementMethod, steps: range) -> None:
        for step in steps:
            give_gradients(method, grads[step])
            method.read_gradients(step)
            method.after_step(step + 1)

    whole = make(masked, tensors)
    run(whole, range(6))
    first = make(masked, tensors)
    run(first, range(3))
    state = first.state_dict()
    second = make(masked, {"w": first.weights.shards[0].parameter.detach()})
    second.weights.restore(first.weights.masks, first.weights.state)
    second.load_state_dict(state)
    run(second, range(3, 6))
    assert torch.equal(second.scores[0], whole.scores[0])
    assert values(second) == values(whole)
    other = make(masked, {"w": torch.randn(41)})
    with pytest.raises(CheckpointError, match="another number of ranks"):
        other.load_state_dict(state)


def test_a_spec_that_would_prune_by_position_is_refused() -> None:
    with pytest.raises(ValueError, match="weights would go by their position"):
        Movement(final_sparsity=0.5, growth_window=(0.0, 0.5))
    with pytest.raises(ValueError, match=r"less than 0\.5"):
        Movement(variant="soft", final_threshold=0.6)
    with pytest.raises(ValueError, match="give final_sparsity"):
        Movement()
    with pytest.raises(ValueError, match="scope is for variant hard"):
        Movement(variant="soft", scope="global")


def test_a_score_without_an_order_is_refused_by_soft_too(masked: Build) -> None:
    method = make(masked, {"w": torch.ones(400)}, variant="soft")
    method.scores[0][7] = float("nan")
    with pytest.raises(PruningError, match="NaN or infinite in w"):
        method.after_step(1)
