"""Pattern lock: the stored mask, or the zeros that are there; and masks that do not belong to the model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from prunus.configs.methods.locked import Locked
from prunus.jobs.errors import PruningError
from prunus.jobs.methods import Method, Start
from prunus.jobs.methods.locked import fit_mask
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.arithmetic import Masks
from prunus.jobs.sparsity.masked_weights import MaskedWeights
from tests.jobs.methods.started import started

Build = Callable[..., tuple[MaskedWeights, torch.optim.AdamW]]
SPARSE = {"w": torch.tensor([[1.0, 0.0], [-0.0, -2.0]])}


def make(masked: Build, tensors: dict[str, torch.Tensor], given: Masks | None = None) -> tuple[Method[Any], Any]:
    weights, optimizer = masked(tensors)
    return started(Locked(), Start(weights, 10, Ranks(0, 1, torch.device("cpu")), given)), optimizer


def test_the_zeros_of_the_starting_weights_are_the_mask(masked: Build) -> None:
    method, _ = make(masked, SPARSE)
    method.first_masks()
    assert method.finish().masks["w"].tolist() == [[True, False], [False, True]]
    assert method.target_sparsity(5) is None


def test_a_stored_mask_is_preferred_so_that_a_kept_zero_stays_trainable(masked: Build, train_step: Any) -> None:
    given = {"w": torch.tensor([[True, True], [False, True]])}
    method, optimizer = make(masked, SPARSE, given)
    method.first_masks()
    assert method.finish().masks["w"].tolist() == given["w"].tolist()
    train_step(method.weights, optimizer, [torch.full((2, 2), 5.0)])
    weight = method.weights.shards[0].parameter
    assert weight[0, 1] != 0.0
    assert weight[1, 0] == 0.0


def test_a_mask_from_elsewhere_is_put_on_the_weights(masked: Build) -> None:
    method, _ = make(masked, {"w": torch.ones(2, 2)}, {"w": torch.tensor([[True, False], [True, True]])})
    method.first_masks()
    assert method.weights.shards[0].parameter.tolist() == [[1.0, 0.0], [1.0, 1.0]]


def test_the_pattern_never_changes_and_training_keeps_it(masked: Build, train_step: Any) -> None:
    method, optimizer = make(masked, SPARSE)
    method.first_masks()
    for step in range(1, 11):
        train_step(method.weights, optimizer, [torch.full((2, 2), 5.0)])
        assert method.after_step(step) is None
    weight = method.weights.shards[0].parameter
    assert (weight == 0).tolist() == [[False, True], [True, False]]
    method.weights.check()


def test_a_dense_start_without_a_mask_has_no_pattern_to_keep(masked: Build) -> None:
    method, _ = make(masked, {"w": torch.ones(2, 2)})
    with pytest.raises(PruningError, match="found no zero in the starting weights: there is no pattern to keep"):
        method.first_masks()


SHAPES = {"a": (2, 3), "b": (4, 1)}


def test_a_mask_is_brought_into_the_models_order_and_weights_that_it_does_not_name_are_kept() -> None:
    mask = {"pooler": torch.ones(1, dtype=torch.bool), "b": torch.zeros(4, 1, dtype=torch.bool)}
    fitted = fit_mask(mask, SHAPES, "job:parent")
    assert list(fitted) == ["a", "b"]
    assert fitted["a"].all()
    assert fitted["a"].shape == (2, 3)
    assert not fitted["b"].any()


def test_a_mask_that_removes_from_weights_left_out_of_the_method_is_refused() -> None:
    mask = {"a.bias": torch.tensor([True, False]), "b": torch.ones(4, 1, dtype=torch.bool)}
    with pytest.raises(PruningError, match=r"also removes from 1 weights that .* leaves out \(a\.bias\); take them in"):
        fit_mask(mask, SHAPES, "job:parent")


def test_a_mask_of_another_model_is_refused_with_names_of_both() -> None:
    with pytest.raises(PruningError) as refused:
        fit_mask({"x": torch.ones(1, dtype=torch.bool)}, SHAPES, "job:parent")
    assert "the mask of job:parent names none of this model's prunable weights (mask: x; model: a, b)" in str(
        refused.value
    )


def test_a_mask_of_another_size_is_refused_with_both_shapes() -> None:
    with pytest.raises(PruningError, match=r"job:parent has shape \(3, 2\) for a, the model has \(2, 3\)"):
        fit_mask({"a": torch.ones(3, 2, dtype=torch.bool)}, SHAPES, "job:parent")
