"""Hidden frames and their negatives: pure functions, true to the paper's shares."""

import numpy as np
import pytest

from prunus.jobs.data.pipeline.batches import EVAL_EPOCH
from prunus.jobs.data.speech.batches.pretraining_masks import PretrainingMasks, draw_negatives


def masks(seed: int = 3, **changed: float) -> PretrainingMasks:
    fixed = {"time_prob": 0.65, "time_length": 10, "num_negatives": 20}
    return PretrainingMasks(**{**fixed, **changed}, seed=seed)  # type: ignore[arg-type]


def test_they_depend_on_seed_epoch_and_clip_alone() -> None:
    mask, negatives = masks().of(1, 5, 80)
    again, same = masks().of(1, 5, 80)
    assert np.array_equal(mask, again)
    assert np.array_equal(negatives, same)
    others = [masks().of(2, 5, 80), masks().of(1, 6, 80), masks(seed=4).of(1, 5, 80)]
    assert all(not np.array_equal(negatives, other) for _, other in others)


def test_a_batch_holds_what_each_clip_has_alone_and_padding_is_never_masked() -> None:
    frames, clips, epochs = np.array([60, 45, 80]), np.array([4, 0, 9]), np.array([0, 0, 1])
    batch = masks().batch(frames, clips, epochs, 90)
    assert batch["time_mask"].shape == (3, 90)
    assert batch["negatives"].shape == (3, 90, 20)
    for row in range(3):
        mask, negatives = masks().of(int(epochs[row]), int(clips[row]), int(frames[row]))
        assert np.array_equal(batch["time_mask"][row, : frames[row]].numpy(), mask)
        assert np.array_equal(batch["negatives"][row, : frames[row]].numpy(), negatives)
        assert not batch["time_mask"][row, frames[row] :].any()


def test_negatives_are_other_masked_frames_of_the_clip() -> None:
    for clip in range(50):
        mask, negatives = masks().of(0, clip, 30 + clip)
        assert mask.any()
        for frame in mask.nonzero()[0]:
            assert mask[negatives[frame]].all()
            assert frame not in negatives[frame]
        assert not negatives[~mask].any()


def test_every_other_masked_frame_is_drawn_equally_often() -> None:
    mask = np.array([True, False, True, True, True, False])
    drawn = draw_negatives(mask, 30_000, np.random.default_rng(0))[3]
    assert [int((drawn == frame).sum()) for frame in (0, 2, 4)] == pytest.approx([10_000] * 3, rel=0.03)


def test_few_masked_frames_are_drawn_again_and_one_alone_does_not_count() -> None:
    two = draw_negatives(np.array([False, True, True]), 5, np.random.default_rng(0))
    assert two.tolist() == [[0] * 5, [2] * 5, [1] * 5]
    alone = PretrainingMasks(time_prob=1.0, time_length=1, num_negatives=3, seed=0)
    mask, negatives = alone.of(0, 0, 1)
    assert mask.tolist() == [False]
    assert not negatives.any()
    assert masks().of(0, 0, 9)[0].sum() == 0  # shorter than a span


def test_about_half_of_a_long_clip_is_masked() -> None:
    """65 spans of 10 begin at 991 places: a frame stays bare with (1 - 65 / 991) ** 10 = 0.507; the paper says 49%."""
    shares = [masks(num_negatives=1).of(0, clip, 1000)[0].mean() for clip in range(40)]
    assert np.mean(shares) == pytest.approx(0.493, abs=0.01)


def test_evaluation_masks_are_those_of_every_job() -> None:
    assert np.array_equal(masks(seed=1).of(EVAL_EPOCH, 2, 50)[1], masks(seed=2).of(EVAL_EPOCH, 2, 50)[1])
    assert not np.array_equal(masks(seed=0).of(EVAL_EPOCH, 2, 50)[1], masks(seed=0).of(0, 2, 50)[1])
