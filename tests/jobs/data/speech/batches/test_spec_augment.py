"""SpecAugment's masks, against transformers' own and against arithmetic."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

from prunus.configs.tasks.speech_data import SpecAugment
from prunus.jobs.data.speech.batches.spec_augment import SpecAugmentMasks, span_mask

TURNS = 600


def _shares(length: int, prob: float, span: int, min_spans: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.asarray([span_mask(length, prob, span, min_spans, rng).mean() for _ in range(TURNS)])


@pytest.mark.parametrize(
    ("length", "prob", "span", "min_spans"),
    [
        (249, 0.75, 10, 2),
        (249, 0.65, 10, 2),
        (100, 0.05, 10, 2),
        (128, 0.25, 64, 0),
        (768, 0.256, 64, 0),
        (15, 1, 10, 2),
    ],
)
def test_the_masked_share_is_that_of_transformers(length: int, prob: Any, span: Any, min_spans: Any) -> None:
    np.random.seed(1)
    theirs = np.asarray(
        [_compute_mask_indices((1, length), prob, span, min_masks=min_spans).mean() for _ in range(TURNS)]
    )
    ours = _shares(length, prob, span, min_spans)
    error = np.hypot(ours.std(), theirs.std()) / TURNS**0.5
    assert abs(ours.mean() - theirs.mean()) <= 4 * error
    assert abs(ours.std() - theirs.std()) <= 0.15 * theirs.std() + 1e-9


def test_masked_places_are_spread_like_those_of_transformers() -> None:
    np.random.seed(1)
    theirs_T = np.mean([_compute_mask_indices((1, 60), 0.5, 10, min_masks=2)[0] for _ in range(TURNS)], axis=0)
    rng = np.random.default_rng(0)
    ours_T = np.mean([span_mask(60, 0.5, 10, 2, rng) for _ in range(TURNS)], axis=0)
    assert np.abs(ours_T - theirs_T).max() < 5 * (0.25 * 2 / TURNS) ** 0.5


def test_spans_have_their_length() -> None:
    for seed in range(50):
        mask = span_mask(100, 0.2, 10, 0, np.random.default_rng(seed))
        edges = np.diff(np.concatenate([[0], mask.astype(int), [0]]))
        runs = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
        assert (runs >= 10).all()
        assert mask.sum() <= 20


@pytest.mark.parametrize("length", [0, 1, 9])
def test_what_is_shorter_than_a_span_is_not_masked(length: int) -> None:
    assert not span_mask(length, 1.0, 10, 2, np.random.default_rng(0)).any()


def test_exactly_one_span_fits() -> None:
    assert span_mask(10, 0.1, 10, 2, np.random.default_rng(0)).all()


def test_no_share_no_mask() -> None:
    assert not span_mask(100, 0.0, 10, 2, np.random.default_rng(0)).any()


def _masks(seed: int = 7, **spec: Any) -> SpecAugmentMasks:
    return SpecAugmentMasks(SpecAugment(**spec), hidden_size=128, min_time_spans=2, min_channel_spans=0, seed=seed)


def test_masks_depend_on_seed_epoch_and_clip_alone() -> None:
    first = _masks().of(3, 11, 200)
    again = _masks().of(3, 11, 200)
    assert (first[0] == again[0]).all() and (first[1] == again[1]).all()
    others = [_masks(8).of(3, 11, 200), _masks().of(4, 11, 200), _masks().of(3, 12, 200)]
    assert all((first[0] != other[0]).any() for other in others)
    assert torch.from_numpy(first[0]).shape == (200,) and first[1].shape == (128,)
