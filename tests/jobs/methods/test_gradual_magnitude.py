"""Gradual magnitude pruning on weights that can be read: who goes, how many, and who comes back."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from prunus.configs.methods.gradual_magnitude import GradualMagnitude
from prunus.configs.schedules import cubic_sparsity, window_steps
from prunus.jobs.engine.shards import Shard
from prunus.jobs.errors import CheckpointError, PruningError
from prunus.jobs.methods import Start
from prunus.jobs.methods.gradual_magnitude import GradualMagnitudeMethod
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.masked_weights import MaskedWeights
from tests.jobs.methods.started import started

Build = Callable[..., tuple[MaskedWeights, torch.optim.AdamW]]


def start_of(weights: MaskedWeights, num_steps: int = 10) -> Start:
    return Start(weights, num_steps, Ranks(0, 1, torch.device("cpu")), None)


def make(masked: Build, tensors: dict[str, torch.Tensor], num_steps: int = 10, **spec: Any) -> GradualMagnitudeMethod:
    options = {"final_sparsity": 0.5, "growth_window": (0.0, 0.4), "selection_window": (0.0, 0.8), "update_every": 2}
    weights, _ = masked(tensors)
    method = started(GradualMagnitude(**{**options, **spec}), start_of(weights, num_steps))
    assert isinstance(method, GradualMagnitudeMethod)
    return method


def values(method: GradualMagnitudeMethod, index: int = 0) -> list[float]:
    return method.weights.shards[index].parameter.detach().flatten().tolist()


def put(method: GradualMagnitudeMethod, position: int, value: float) -> None:
    """What training would do to a weight."""
    method.weights.shards[0].parameter.data.view(-1)[position] = value


ONCE = {"initial_sparsity": 0.5, "growth_window": (0.0, 0.0), "selection_window": (0.0, 0.0)}


def test_one_shot_removes_the_smallest_magnitudes_whatever_their_sign(masked: Build) -> None:
    method = make(masked, {"w": torch.tensor([[-4.0, 0.5], [3.0, -1.0]])}, **ONCE)
    method.first_masks()
    assert values(method) == [-4.0, 0.0, 3.0, 0.0]
    assert method.weights.sparsity == 0.5
    assert all(method.after_step(step) is None for step in range(1, 11))


def test_equal_weights_go_first_come_first_and_exactly_k(masked: Build) -> None:
    method = make(masked, {"w": torch.ones(2, 5)}, **{**ONCE, "final_sparsity": 0.7, "initial_sparsity": 0.7})
    method.first_masks()
    assert values(method) == [0.0] * 7 + [1.0] * 3


def test_per_layer_every_tensor_loses_its_own_share(masked: Build) -> None:
    tensors = {"small": torch.arange(1.0, 11.0).view(2, 5), "large": torch.arange(100.0, 107.0).view(1, 7)}
    method = make(masked, tensors, **ONCE)
    method.first_masks()
    # floor(0.5 * 10) = 5, floor(0.5 * 7) = 3
    assert values(method, 0) == [0.0] * 5 + [6.0, 7.0, 8.0, 9.0, 10.0]
    assert values(method, 1) == [0.0] * 3 + [103.0, 104.0, 105.0, 106.0]


def test_globally_one_threshold_holds_over_all(masked: Build) -> None:
    tensors = {"small": torch.arange(1.0, 11.0).view(2, 5), "large": torch.arange(100.0, 107.0).view(1, 7)}
    method = make(masked, tensors, scope="global", **ONCE)
    method.first_masks()
    assert values(method, 0) == [0.0] * 8 + [9.0, 10.0]  # floor(0.5 * 17) = 8, all from the small one
    assert values(method, 1) == [100.0, 101.0, 102.0, 103.0, 104.0, 105.0, 106.0]


@pytest.mark.parametrize("scope", ["per_layer", "global"])
def test_every_update_meets_the_schedule_exactly_and_the_end_is_exact(masked: Build, scope: str) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {"a": torch.randn(13, 7, generator=generator), "b": torch.randn(5, 11, generator=generator)}
    method = make(masked, tensors, num_steps=20, final_sparsity=0.9, update_every=3, scope=scope)
    method.first_masks()
    growth = window_steps((0.0, 0.4), 20)
    updates = []
    for step in range(1, 21):
        if method.after_step(step) is not None:
            updates.append(step)
            target = cubic_sparsity(step, growth, 0.0, 0.9)
            removed = [int((~mask).sum()) for mask in method.weights.masks.values()]
            sizes = [91, 55] if scope == "per_layer" else [146]
            removed = removed if scope == "per_layer" else [sum(removed)]
            assert removed == [int(target * size + 1e-9) for size in sizes]
        assert method.target_sparsity(step) == cubic_sparsity(step, growth, 0.0, 0.9)
    assert updates == [3, 6, 8, 9, 12, 15]  # every 3 until 16, and 8, where growth ends


def test_with_regrow_a_removed_weight_comes_back_when_the_others_fall_below_it(masked: Build) -> None:
    method = make(masked, {"w": torch.tensor([[1.0, 2.0, 3.0, 4.0]])}, regrow=True, initial_sparsity=0.5)
    method.first_masks()
    assert values(method) == [0.0, 0.0, 3.0, 4.0]
    put(method, 2, 1.5)  # now below the hidden 2
    change = method.after_step(2)
    assert change is not None
    assert values(method) == [0.0, 2.0, 0.0, 4.0]
    assert change.flipped == 0.5
    put(method, 1, 1.2)  # below the hidden 1.5
    method.after_step(4)
    assert values(method) == [0.0, 0.0, 1.5, 4.0]


def test_without_regrow_what_is_gone_stays_gone(masked: Build) -> None:
    method = make(masked, {"w": torch.tensor([[1.0, 2.0, 3.0, 4.0]])}, regrow=False, initial_sparsity=0.5)
    method.first_masks()
    put(method, 2, 1.5)
    method.after_step(2)
    assert values(method) == [0.0, 0.0, 1.5, 4.0]
    assert method.state_dict() == {"removed": None}


def test_after_the_selection_window_the_pattern_is_frozen(masked: Build) -> None:
    method = make(masked, {"w": torch.tensor([[1.0, 2.0, 3.0, 4.0]])}, initial_sparsity=0.5)
    method.first_masks()
    put(method, 2, 1e-6)
    assert method.after_step(9) is None
    assert method.after_step(10) is None
    assert values(method) == [0.0, 0.0, pytest.approx(1e-6), 4.0]


def test_growth_that_begins_later_leaves_the_start_dense(masked: Build) -> None:
    method = make(masked, {"w": torch.ones(2, 2)}, growth_window=(0.2, 0.4), selection_window=(0.2, 0.8))
    method.first_masks()
    assert method.weights.sparsity == 0.0
    assert [s for s in range(1, 11) if method.after_step(s) is not None] == [2, 4, 6, 8]
    assert method.weights.sparsity == 0.5


def test_a_target_of_zero_changes_nothing(masked: Build) -> None:
    method = make(masked, {"w": torch.tensor([[0.0, 2.0, -3.0]])}, final_sparsity=0.0)
    method.first_masks()
    for step in range(1, 11):
        method.after_step(step)
    assert values(method) == [0.0, 2.0, -3.0]
    assert method.weights.masks["w"].all()


def test_hidden_weights_survive_a_checkpoint(masked: Build) -> None:
    tensors = {"w": torch.tensor([[1.0, 2.0, 3.0, 4.0]])}
    method = make(masked, tensors, initial_sparsity=0.5)
    method.first_masks()
    resumed = make(masked, {"w": torch.tensor([[0.0, 0.0, 3.0, 4.0]])}, initial_sparsity=0.5)
    resumed.weights.set_masks(method.weights.masks)
    resumed.load_state_dict(method.state_dict())
    put(resumed, 2, 1.5)
    resumed.after_step(2)
    assert values(resumed) == [0.0, 2.0, 0.0, 4.0]


def test_hidden_weights_of_another_split_are_refused(masked: Build) -> None:
    method = make(masked, {"w": torch.ones(2, 2)})
    with pytest.raises(CheckpointError, match=r"another number of ranks or another engine\.strategy"):
        method.load_state_dict({"removed": [torch.ones(2)]})


@pytest.mark.parametrize("scope", ["per_layer", "global"])
def test_any_number_of_ranks_chooses_the_masks_of_one(
    masked: Build, gang: Callable[..., list[Any]], scope: str
) -> None:
    """Each rank owns a run of each weight, as under ZeRO; values have many ties."""
    generator = torch.Generator().manual_seed(2)
    tensors = {
        n: torch.randint(-3, 4, shape, generator=generator).float() for n, shape in {"a": (5, 7), "b": (3, 9)}.items()
    }
    spec = {**ONCE, "scope": scope, "final_sparsity": 0.6, "initial_sparsity": 0.6}
    alone = make(masked, tensors, **spec)
    alone.first_masks()

    def act(ranks: Ranks) -> dict[str, list[bool]]:
        shards = []
        for index, (name, tensor) in enumerate(tensors.items()):
            cuts = [0, 11, tensor.numel() - 1, tensor.numel()]
            begin, end = cuts[ranks.rank], cuts[ranks.rank + 1]
            parameter = torch.nn.Parameter(tensor.clone())
            optimizer = torch.optim.AdamW([parameter])
            shards.append(_Run(name, index, tuple(tensor.shape), begin, end - begin, False, parameter, optimizer, None))
        method = started(
            GradualMagnitude(**{"update_every": 2, **spec}), Start(MaskedWeights(shards, None, ranks), 10, ranks, None)
        )
        method.first_masks()
        return {name: mask.flatten().tolist() for name, mask in method.weights.masks.items()}

    expected = {name: mask.flatten().tolist() for name, mask in alone.weights.masks.items()}
    assert gang(3, act) == [expected] * 3


ATTENTION = [f"encoder.layer.0.attention.self.{name}.weight" for name in ("query", "key", "value")]
ATTENTION += ["encoder.layer.0.attention.output.dense.weight"]
HEADS = 4


def pattern_method(masked: Build, pattern: str, regrow: bool) -> GradualMagnitudeMethod:
    """16 steps, growth until 8, selection until 12, every 2: four matrices of 8 x 8, which are four heads."""
    generator = torch.Generator().manual_seed(4)
    weights, _ = masked({name: torch.randn(8, 8, generator=generator) for name in ATTENTION})
    spec = GradualMagnitude(
        final_sparsity=0.5,
        growth_window=(0.0, 0.5),
        selection_window=(0.0, 0.75),
        update_every=2,
        pattern=pattern,
        regrow=regrow,
    )
    method = started(spec, Start(weights, 16, Ranks(0, 1, torch.device("cpu")), None, HEADS))
    assert isinstance(method, GradualMagnitudeMethod)
    return method


def train_from(method: GradualMagnitudeMethod, first: int, last: int) -> dict[int, dict[str, torch.Tensor]]:
    """Steps that move every kept weight at random; the masks after each update."""
    found = {}
    for step in range(first, last + 1):
        generator = torch.Generator().manual_seed(step)
        for shard in method.weights.shards:
            moved = torch.randn(8, 8, generator=generator)
            shard.parameter.data.add_(moved * method.weights.masks[shard.name])
        if method.after_step(step) is not None:
            found[step] = {name: mask.clone() for name, mask in method.weights.masks.items()}
    return found


def heads_kept(masks: dict[str, torch.Tensor]) -> list[bool]:
    """Of each head; its weights in all four matrices must say the same."""
    kept = []
    for head in range(HEADS):
        own = slice(2 * head, 2 * head + 2)
        bits = torch.cat(
            [*(masks[name][own].flatten() for name in ATTENTION[:3]), masks[ATTENTION[3]][:, own].flatten()]
        )
        assert bits.all() or not bits.any(), f"head {head} is torn"
        kept.append(bool(bits.all()))
    return kept


# 0.5 (1 - (1 - t / 8)^3) of 4: the floor at steps 2, 4, 6 is that of 1.16, 1.75, 1.97
GONE = {2: 1, 4: 1, 6: 1, 8: 2, 10: 2, 12: 2}


@pytest.mark.parametrize("regrow", [True, False])
def test_two_of_four_is_reached_exactly_in_every_group(masked: Build, regrow: bool) -> None:
    method = pattern_method(masked, "2:4", regrow)
    method.first_masks()
    assert method.weights.sparsity == 0.0
    updates = train_from(method, 1, 16)
    assert {
        step: {int(n) for m in masks.values() for n in (~m).view(-1, 4).sum(1)} for step, masks in updates.items()
    } == {step: {gone} for step, gone in GONE.items()}
    assert method.weights.sparsity == method.target_sparsity(16) == 0.5
    grown_back = any(bool((updates[s + 2][n] & ~updates[s][n]).any()) for s in (2, 4, 6, 8, 10) for n in ATTENTION)
    assert grown_back is regrow
    assert all(not s.parameter[~method.weights.masks[s.name]].any() for s in method.weights.shards)


@pytest.mark.parametrize("regrow", [True, False])
def test_heads_go_whole_and_exactly_as_many_as_asked(masked: Build, regrow: bool) -> None:
    method = pattern_method(masked, "heads", regrow)
    method.first_masks()
    assert method.weights.sparsity == 0.0
    kept = {step: heads_kept(masks) for step, masks in train_from(method, 1, 16).items()}
    assert {step: of_step.count(False) for step, of_step in kept.items()} == GONE
    assert method.weights.sparsity == method.target_sparsity(16) == 0.5
    if not regrow:
        steps = sorted(kept)
        assert all(b <= a for s, t in pairwise(steps) for a, b in zip(kept[s], kept[t], strict=True))
    assert all(not s.parameter[~method.weights.masks[s.name]].any() for s in method.weights.shards)


def test_a_head_returns_with_its_values_once_another_falls_below_it(masked: Build) -> None:
    method = pattern_method(masked, "heads", regrow=True)
    method.first_masks()
    before = {s.name: s.parameter.detach().clone() for s in method.weights.shards}
    gone = heads_kept(next(iter(train_from_nothing(method, 2).values()))).index(False)
    other = (gone + 1) % HEADS
    for shard in method.weights.shards[:3]:
        shard.parameter.data[2 * other : 2 * other + 2] = 0.0
    method.weights.shards[3].parameter.data[:, 2 * other : 2 * other + 2] = 0.0
    assert heads_kept(train_from_nothing(method, 4)[4]) == [head != other for head in range(HEADS)]
    own = slice(2 * gone, 2 * gone + 2)
    assert all(torch.equal(s.parameter[own], before[s.name][own]) for s in method.weights.shards[:3])
    assert torch.equal(method.weights.shards[3].parameter[:, own], before[ATTENTION[3]][:, own])


def train_from_nothing(method: GradualMagnitudeMethod, step: int) -> dict[int, dict[str, torch.Tensor]]:
    assert method.after_step(step) is not None
    return {step: {name: mask.clone() for name, mask in method.weights.masks.items()}}


@pytest.mark.parametrize("regrow", [True, False])
@pytest.mark.parametrize("pattern", ["2:4", "heads"])
def test_a_run_goes_on_from_its_state_as_if_it_had_not_stopped(
    masked: Build, tmp_path: Path, pattern: str, regrow: bool
) -> None:
    unbroken = pattern_method(masked, pattern, regrow)
    unbroken.first_masks()
    train_from(unbroken, 1, 5)
    torch.save(unbroken.state_dict(), tmp_path / "state.pt")
    resumed = pattern_method(masked, pattern, regrow)
    for shard, old in zip(resumed.weights.shards, unbroken.weights.shards, strict=True):
        shard.parameter.data.copy_(old.parameter.data)
    resumed.weights.set_masks(unbroken.weights.masks)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    expected, found = train_from(unbroken, 6, 16), train_from(resumed, 6, 16)
    assert expected.keys() == found.keys() == {6, 8, 10, 12}
    for step, masks in expected.items():
        assert all(torch.equal(found[step][name], mask) for name, mask in masks.items()), step
    for shard, old in zip(resumed.weights.shards, unbroken.weights.shards, strict=True):
        assert torch.equal(shard.parameter, old.parameter)


class _Run(Shard):
    """A run of a plain parameter: master and copy are the same storage."""

    def master_L(self) -> torch.Tensor:
        return self.parameter.data.view(-1)[self.start : self.start + self.numel]


def test_zeros_of_a_sparse_checkpoint_are_not_grown_back_without_a_word(masked: Build) -> None:
    half = {"w": torch.tensor([[0.0, 3.0], [0.0, 1.0]])}
    with pytest.raises(PruningError, match=r"0\.50 sparse already.*set initial_sparsity: 0\.50"):
        make(masked, half, final_sparsity=0.75).first_masks()
    method = make(masked, half, initial_sparsity=0.5, final_sparsity=0.75)
    method.first_masks()
    assert method.weights.masks["w"].tolist() == [[False, True], [False, True]]


def test_biases_that_begin_as_zeros_make_no_sparse_checkpoint(masked: Build) -> None:
    tensors = {"w": torch.tensor([[1.0, 3.0], [4.0, 2.0]]), "b": torch.zeros(2)}
    method = make(masked, tensors, scope="global", prunable={"biases": True})
    method.first_masks()
    assert method.weights.sparsity == 0.0


def test_a_sparse_checkpoint_may_be_pruned_further_at_once(masked: Build) -> None:
    half = {"w": torch.tensor([[0.0, 3.0], [0.0, 1.0]])}
    method = make(masked, half, final_sparsity=0.75, schedule="constant")
    method.first_masks()  # all goes at step 0: nothing could grow back
    assert method.weights.masks["w"].tolist() == [[False, True], [False, False]]


def with_given_mask(masked: Build, **spec: Any) -> GradualMagnitudeMethod:
    """1, -2, 3 and 4, of which a mask from elsewhere removes the 4; half of them go after the last of three steps."""
    weights, _ = masked({"w": torch.tensor([[1.0, -2.0], [3.0, 4.0]])})
    given = {"w": torch.tensor([[True, True], [True, False]])}
    options: dict[str, Any] = {"final_sparsity": 0.5, "growth_window": (1.0, 1.0), "selection_window": (1.0, 1.0)}
    at_the_end = GradualMagnitude(**{**options, **spec})
    method = started(at_the_end, Start(weights, 3, Ranks(0, 1, torch.device("cpu")), given))
    assert isinstance(method, GradualMagnitudeMethod)
    return method


@pytest.mark.parametrize(("regrow", "left"), [(True, [0.0, 0.0, 3.0, 4.0]), (False, [0.0, -2.0, 3.0, 0.0])])
def test_a_mask_from_elsewhere_is_the_first_and_what_it_removes_returns_only_with_regrow(
    masked: Build, regrow: bool, left: list[float]
) -> None:
    """Without: a round of iterative pruning, whose mask lies inside that of the round before."""
    method = with_given_mask(masked, initial_sparsity=0.25, regrow=regrow)
    method.first_masks()
    assert values(method) == [1.0, -2.0, 3.0, 0.0]
    assert [method.after_step(step) for step in (1, 2)] == [None, None]
    method.after_step(3)
    assert values(method) == left


def test_a_mask_from_elsewhere_is_not_grown_back_without_a_word(masked: Build) -> None:
    with pytest.raises(PruningError, match=r"mask of method\.mask is 0\.25 sparse.*set initial_sparsity: 0\.25"):
        with_given_mask(masked).first_masks()
