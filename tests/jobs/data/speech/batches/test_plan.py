"""Which clips meet at which step: every clip once an epoch, never too much audio, the same for any gang."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.configs import JobSpec
from prunus.jobs.data.speech.batches.plan import RowsPerStep, SecondsPerStep, cut, deal, least_micro_batches

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=60).map(lambda values: np.asarray(values, dtype=np.int64))


def _plan(lengths_N: np.ndarray, batch: int, micro: int, grouped: bool = True, seed: int = 0) -> SecondsPerStep:
    return SecondsPerStep(lengths_N, batch, micro, least_micro_batches(batch, micro), seed, group_by_length=grouped)


@settings(max_examples=60)
@given(LENGTHS, st.integers(50, 200), st.integers(50, 120), st.booleans(), st.integers(0, 5))
def test_batches_partition_each_epoch_and_hold_their_limits(
    lengths_N: Any, batch: Any, micro: int, grouped: Any, seed: int
) -> None:
    plan = _plan(lengths_N, batch, micro, grouped, seed)
    seen: dict[int, list[int]] = {}
    step = 0
    while len(seen) < 4:
        epochs_B, indices_B = plan.at(step)
        assert len(set(epochs_B.tolist())) == 1  # no step spans two epochs
        rows, longest = len(indices_B), int(lengths_N[indices_B].max())
        assert rows * longest <= batch
        for ranks in (1, 2, 3):  # and no micro-batch is too long, however many ranks there are
            accumulation = least_micro_batches(batch, micro * ranks)
            sizes = [len(p) for rank in range(ranks) for p in deal(rows, rank, ranks, accumulation)]
            assert max(sizes) * longest <= micro
        seen.setdefault(int(epochs_B[0]), []).extend(indices_B.tolist())
        step += 1
    for epoch in range(3):
        assert sorted(seen[epoch]) == list(range(len(lengths_N)))


def test_a_batch_is_as_full_as_the_limits_allow() -> None:
    # 3 x 30 = 90 <= 100; a fourth of 31 would make 124. Two micro-batches of 50 hold one clip of 30 each.
    order_N = np.arange(5)
    assert [b.tolist() for b in cut(order_N, [30, 30, 30, 31, 40], 100, 100, 1)] == [[0, 1, 2], [3, 4]]
    assert [b.tolist() for b in cut(order_N, [30, 30, 30, 31, 40], 100, 50, 2)] == [[0, 1], [2, 3], [4]]


def test_any_step_can_be_read_without_those_before_it() -> None:
    lengths_N = np.random.default_rng(0).integers(5, 50, 40)
    walked = _plan(lengths_N, 200, 100)
    steps = [walked.at(step) for step in range(60)]
    for step in (59, 0, 17, 16, 58):
        epochs_B, indices_B = _plan(lengths_N, 200, 100).at(step)
        assert (epochs_B == steps[step][0]).all() and (indices_B == steps[step][1]).all()


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    lengths_N = np.random.default_rng(0).integers(5, 50, 40)
    plan = _plan(lengths_N, 200, 100)
    first = plan.steps_of_first_epoch
    orders = [np.concatenate([plan.at(step)[1] for step in range(start, start + first - 2)]) for start in (0, first)]
    assert orders[0][:10].tolist() != orders[1][:10].tolist()
    assert _plan(lengths_N, 200, 100, seed=1).at(0)[1].tolist() != plan.at(0)[1].tolist()


def test_grouping_by_length_leaves_little_padding() -> None:
    lengths_N = np.random.default_rng(0).integers(16_000, 160_000, 2000)

    def padding(grouped: bool) -> float:
        plan = _plan(lengths_N, 1_600_000, 1_600_000, grouped)
        batches = [lengths_N[plan.at(step)[1]] for step in range(plan.steps_of_first_epoch)]
        return 1 - lengths_N.sum() / sum(len(b) * b.max() for b in batches)

    assert padding(True) < 0.05
    assert padding(False) > 0.3


@pytest.mark.parametrize("grouped", [True, False])
def test_so_many_clips_per_step(grouped: Any) -> None:
    lengths_N = np.random.default_rng(0).integers(5, 50, 20)
    plan = RowsPerStep(lengths_N, 5, seed=3, group_by_length=grouped)
    epoch = [plan.at(step)[1] for step in range(4)]
    assert sorted(np.concatenate(epoch).tolist()) == list(range(20))
    spread = [int(np.ptp(lengths_N[indices_B])) for indices_B in epoch]
    assert (max(spread) < 20) == grouped


@given(st.integers(0, 40), st.integers(1, 4), st.integers(1, 4))
def test_a_batch_is_dealt_evenly_and_in_order(num_rows: int, world_size: int, accumulation: Any) -> None:
    parts = [part for rank in range(world_size) for part in deal(num_rows, rank, world_size, accumulation)]
    assert [place for part in parts for place in part] == list(range(num_rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.floats(1, 2000), st.floats(0.05, 1), st.integers(1, 16))
def test_the_spec_never_makes_fewer_micro_batches_than_a_batch_needs(batch_s: Any, share: Any, ranks: int) -> None:
    micro_s = batch_s * share
    spec = JobSpec.model_validate(
        {
            "name": "j",
            "task": {"name": "ctc", "data": {"train": {"files": ["a"]}}},
            "model": {"from": "m"},
            "train": {"num_steps": 1, "lr": {"peak": 1}, "batch_seconds": batch_s, "micro_batch_seconds": micro_s},
            "resources": {"num_ranks": ranks},
        }
    )
    assert spec.accumulation_steps * ranks >= least_micro_batches(batch_s, micro_s)
