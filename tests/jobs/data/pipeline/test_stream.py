"""Streams: the same batches for any number of ranks, and a resume that repeats and skips nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from prunus.jobs.data.build import build_data
from prunus.jobs.data.pipeline import stream
from prunus.jobs.errors import DataError
from tests.jobs.lone_rank import MakeRanks, MakeSpec


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SHUFFLE_ROWS", 5)


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """13 rows whose label is their number."""
    path = tmp_path / "numbered.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{'a ' * (1 + i % 4)}\t{i}\n" for i in range(13)))
    return path


@pytest.fixture
def labelled(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    classification: MakeSpec,
    ranks: MakeRanks,
    numbered: Path,
) -> Any:
    def make(rank: int = 0, world_size: int = 1, **options: Any) -> Any:
        names = tuple(map(str, range(13)))
        spec = classification(numbered, numbered, names, streaming=True, world_size=world_size, **options)
        return build_data(spec, tokenizer, tmp_path / "cache", ranks(rank, world_size))

    return make


@pytest.fixture
def packed(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    masked_lm: MakeSpec,
    ranks: MakeRanks,
    letters: Path,
) -> Any:
    def make(rank: int = 0, world_size: int = 1, **options: Any) -> Any:
        spec = masked_lm(letters, letters, streaming=True, world_size=world_size, **options)
        return build_data(spec, tokenizer, tmp_path / "cache", ranks(rank, world_size))

    return make


def _rows(batches: list) -> list[list[int]]:
    return [row for b in batches for row in torch.cat([b["input_ids"], b["labels"]], dim=1).tolist()]


def test_the_length_is_unknown_and_the_eval_split_is_not(packed: Any) -> None:
    data = packed()
    assert data.num_train_sequences is None
    assert len(data.eval) > 0


def test_windows_are_shuffled_and_epochs_are_complete(labelled: Any) -> None:
    train = labelled(batch_size=1).train
    seen = [int(train.at(step)[0]["labels"]) for step in range(26)]
    for epoch in (seen[:13], seen[13:]):
        windows = [epoch[:5], epoch[5:10], epoch[10:]]
        assert [sorted(window) for window in windows] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12]]
    assert seen[:13] != list(range(13))
    assert seen[:13] != seen[13:]


@pytest.mark.parametrize("kind", ["labelled", "packed"])
@pytest.mark.parametrize("world_size", [2, 4])
def test_every_number_of_ranks_sees_the_same_batches(
    request: pytest.FixtureRequest, kind: str, world_size: int
) -> None:
    make = request.getfixturevalue(kind)

    def steps(world: int) -> list:
        trains = [make(rank, world, batch_size=4).train for rank in range(world)]
        key = "input_ids" if kind == "packed" else "labels"
        return [[row for t in trains for b in t.at(step) for row in b[key].tolist()] for step in range(9)]

    assert steps(world_size) == steps(1)


@pytest.mark.parametrize("cut", range(10))
def test_a_resumed_run_continues_exactly(packed: Any, cut: Any) -> None:
    train = packed(batch_size=3).train
    unbroken = [_rows(train.at(step)) for step in range(14)]
    first = packed(batch_size=3).train
    for step in range(cut):
        first.at(step)
    state = json.loads(json.dumps(first.state_dict()))  # plain data: fit for any checkpoint
    resumed = packed(batch_size=3).train
    resumed.load_state_dict(state)
    assert [_rows(resumed.at(step)) for step in range(cut, 14)] == unbroken[cut:]


def test_a_resume_may_change_the_number_of_ranks(packed: Any) -> None:
    train = packed(batch_size=4).train
    unbroken = [_rows(train.at(step)) for step in range(8)]
    first = packed(rank=1, world_size=2, batch_size=4).train
    for step in range(3):
        first.at(step)
    gang = [packed(rank, 4, batch_size=4).train for rank in range(4)]
    for rank_train in gang:
        rank_train.load_state_dict(first.state_dict())
    assert [[row for t in gang for row in _rows(t.at(step))] for step in range(3, 8)] == unbroken[3:]


def test_steps_out_of_order_are_the_same_batches(packed: Any) -> None:
    train = packed(batch_size=2).train
    in_order = [_rows(train.at(step)) for step in range(6)]
    for step in (5, 1, 1, 4, 0):
        assert _rows(train.at(step)) == in_order[step]


def test_a_saved_position_does_not_move_with_the_stream(packed: Any) -> None:
    train = packed(batch_size=2).train
    train.at(0)
    state = train.state_dict()
    before = json.dumps(state)
    for step in range(1, 9):
        train.at(step)
    assert json.dumps(state) == before


def test_resume_does_not_read_the_split_from_its_start(packed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    train = packed(batch_size=2).train
    train.at(0)
    items = train._items
    while items._at_window["first_row"] < 11:
        items.take(1, range(0))
    state = items.state()
    resumed = packed(batch_size=2).train
    asked = []
    monkeypatch.setattr(resumed._items.stage, "items", lambda rows, first: asked.append(first) or [[0]] * 5)
    resumed._items.restart(state)
    assert asked == [state["first_row"]]


def test_streamed_masks_depend_on_the_epoch(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, masked_lm: MakeSpec, ranks: MakeRanks
) -> None:
    path = tmp_path / "one.txt"
    path.write_text("a b c d e f\n")  # one sequence an epoch
    spec = masked_lm(path, streaming=True, batch_size=8)
    (batch,) = build_data(spec, tokenizer, tmp_path / "cache", ranks()).train.at(0)
    assert len({tuple(row) for row in batch["labels"].tolist()}) > 1
    whole = torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])
    assert whole.tolist() == [[2, 5, 6, 7, 8, 9, 10, 3]] * 8


def test_too_little_text_for_one_sequence_is_an_error(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, masked_lm: MakeSpec, ranks: MakeRanks
) -> None:
    path = tmp_path / "short.txt"
    path.write_text("a b\nc\n")
    data = build_data(masked_lm(path, streaming=True), tokenizer, tmp_path / "cache", ranks())
    with pytest.raises(DataError, match="2 rows make no full sequence"):
        data.train.at(0)


def test_streamed_classification_needs_the_labels(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    classification: MakeSpec,
    ranks: MakeRanks,
    numbered: Path,
) -> None:
    with pytest.raises(DataError, match=r"give the names of the classes: task\.labels"):
        build_data(classification(numbered, numbered, streaming=True), tokenizer, tmp_path / "cache", ranks())


def test_an_unknown_column_is_an_error_at_the_first_step(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    masked_lm: MakeSpec,
    ranks: MakeRanks,
    numbered: Path,
) -> None:
    spec = masked_lm(numbered, streaming=True, text_column="words")
    data = build_data(spec, tokenizer, tmp_path / "cache", ranks())
    with pytest.raises(DataError, match="has no column 'words'"):
        data.train.at(0)
