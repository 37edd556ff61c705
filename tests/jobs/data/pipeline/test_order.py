"""Who reads which sequence at which step."""

import numpy as np
import pytest

from prunus.jobs.data.pipeline.order import ByLength, Layout, ShuffledEpochs, eval_share


def test_ranks_cut_the_global_batch_into_consecutive_slices() -> None:
    # batch 8, 2 ranks, 2 micro-batches of 2: step 3 starts at position 24; rank 1 has its second half.
    layout = Layout(batch_size=8, accumulation_steps=2, rank=1, world_size=2)
    assert layout.micro_batches(3) == [range(28, 30), range(30, 32)]


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (1, 4), (2, 2), (4, 1), (4, 2)])
def test_the_union_over_ranks_is_the_global_batch(world_size: int, accumulation: int) -> None:
    for step in (0, 5):
        parts = [Layout(8, accumulation, rank, world_size).micro_batches(step) for rank in range(world_size)]
        positions = [p for rank_parts in parts for micro in rank_parts for p in micro]
        assert positions == list(range(8 * step, 8 * step + 8))


def test_each_epoch_shows_every_sequence_once_in_an_order_of_its_own() -> None:
    epochs = ShuffledEpochs(50, seed=3)
    located = [epochs.locate(range(start, start + 5)) for start in range(0, 150, 5)]
    numbers = np.concatenate([e for e, _ in located]), np.concatenate([i for _, i in located])
    assert numbers[0].tolist() == [0] * 50 + [1] * 50 + [2] * 50
    orders = numbers[1].reshape(3, 50)
    assert (np.sort(orders, axis=1) == np.arange(50)).all()
    assert (orders[0] != orders[1]).any() and (orders[1] != orders[2]).any()
    assert (orders[0] != np.arange(50)).any()


def test_any_position_can_be_read_without_those_before_it() -> None:
    walked = ShuffledEpochs(7, seed=1)
    for start in range(0, 300, 3):
        expected = walked.locate(range(start, start + 3))
    jumped = ShuffledEpochs(7, seed=1).locate(range(297, 300))
    assert [a.tolist() for a in jumped] == [a.tolist() for a in expected]


def test_a_batch_longer_than_the_split_spans_several_epochs() -> None:
    epochs_B, indices_B = ShuffledEpochs(3, seed=0).locate(range(1, 9))
    assert epochs_B.tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    assert sorted(indices_B[2:5].tolist()) == [0, 1, 2]


def test_seeds_give_different_orders() -> None:
    orders = [ShuffledEpochs(50, seed).locate(range(50))[1].tolist() for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("num_rows", [1, 2, 5, 8])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_evaluation_counts_each_row_once_and_gives_ranks_equally_many(num_rows: int, world_size: int) -> None:
    shares = [eval_share(num_rows, rank, world_size) for rank in range(world_size)]
    assert len({len(rows) for rows, _ in shares}) == 1
    counted = sorted(int(r) for rows, weights in shares for r, w in zip(rows, weights, strict=True) if w == 1.0)
    assert counted == list(range(num_rows))
    assert all(set(weights.tolist()) <= {0.0, 1.0} for _, weights in shares)


def grouped(num_sequences: int, batch_size: int, num_epochs: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs and indices of whole epochs in order, and the lengths behind them."""
    lengths_N = np.random.default_rng(5).integers(1, 100, num_sequences)
    epochs, indices = ShuffledEpochs(num_sequences, 1, ByLength(lengths_N, batch_size)).locate(
        range(num_epochs * num_sequences)
    )
    return epochs, indices, lengths_N


@pytest.mark.parametrize(("num_sequences", "batch_size"), [(640, 8), (645, 8), (7, 8), (3, 8), (1, 4), (16, 16)])
def test_grouping_by_length_still_shows_every_sequence_once_an_epoch(num_sequences: int, batch_size: int) -> None:
    epochs, indices, _ = grouped(num_sequences, batch_size)
    assert (epochs.reshape(3, -1) == np.arange(3)[:, None]).all()
    assert (np.sort(indices.reshape(3, -1), axis=1) == np.arange(num_sequences)).all()


def test_grouping_by_length_loses_nearly_all_padding_also_where_epochs_are_no_whole_batches() -> None:
    _, indices, lengths_N = grouped(num_sequences=1605, batch_size=8)
    batches = lengths_N[indices[: len(indices) // 8 * 8]].reshape(-1, 8)
    padded = batches.max(axis=1).sum() * 8 / batches.sum()
    plain = lengths_N[ShuffledEpochs(1605, 1).locate(range(4808))[1]].reshape(-1, 8)
    # Uniform lengths: the longest of 8 is 16/9 of the mean. Grouped, only batches across two epochs pad like that.
    assert plain.max(axis=1).sum() * 8 / plain.sum() > 1.7
    assert padded < 1.05


def test_grouped_batches_do_not_come_sorted_and_differ_by_epoch() -> None:
    _, indices, lengths_N = grouped(num_sequences=640, batch_size=8)
    means = lengths_N[indices].reshape(3, 80, 8).mean(axis=2)
    for epoch in means:
        assert abs(np.corrcoef(epoch, np.arange(80))[0, 1]) < 0.3
    sets = [{frozenset(b) for b in epoch.reshape(-1, 8).tolist()} for epoch in indices.reshape(3, -1)]
    assert not sets[0] & sets[1]


def test_grouped_positions_can_be_read_without_those_before_them() -> None:
    lengths_N = np.random.default_rng(5).integers(1, 100, 21)
    walked, jumped = (ShuffledEpochs(21, 1, ByLength(lengths_N, 4)) for _ in range(2))
    for start in range(0, 400, 4):
        expected = walked.locate(range(start, start + 4))
    assert [a.tolist() for a in jumped.locate(range(396, 400))] == [a.tolist() for a in expected]
