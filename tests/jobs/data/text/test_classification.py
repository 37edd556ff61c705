"""Labelled rows from file to batch, worked by hand: a is token 5, [CLS] 2, [SEP] 3, [PAD] 0."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from prunus.jobs.data.build import build_data
from prunus.jobs.data.text import classification as classification_module
from prunus.jobs.data.text.classification import Padding, sort_labels
from prunus.jobs.errors import DataError
from tests.jobs.lone_rank import MakeRanks, MakeSpec


def _tsv(path: Path, *rows: str) -> Path:
    path.write_text("".join(f"{row}\n" for row in ("text\tlabel", *rows)), encoding="utf-8")
    return path


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return _tsv(tmp_path / "train.tsv", "a b\tgood", "c\tbad", "d e f\tgood", "g\tfine")


def test_rows_are_framed_padded_and_numbered(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    classification: MakeSpec,
    ranks: MakeRanks,
    train: Path,
) -> None:
    data = build_data(classification(train, train, batch_size=4), tokenizer, tmp_path / "cache", ranks())
    assert data.labels == ("bad", "fine", "good")
    assert data.num_train_sequences == 4
    (batch,) = list(data.eval)
    assert batch["input_ids"].tolist() == [[2, 5, 6, 3, 0], [2, 7, 3, 0, 0], [2, 8, 9, 10, 3], [2, 11, 3, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0] * 5] * 4
    assert batch["labels"].tolist() == [2, 0, 2, 1]
    assert batch["weight"].tolist() == [1.0] * 4
    (shuffled,) = data.train.at(0)
    assert sorted(shuffled["labels"].tolist()) == [0, 1, 2, 2]


def test_long_rows_are_cut(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    classification: MakeSpec,
    ranks: MakeRanks,
) -> None:
    long = _tsv(tmp_path / "t.tsv", "a b c d e f g h i j\t0", "a\t1")
    (batch,) = list(build_data(classification(long, long), tokenizer, tmp_path / "cache", ranks()).eval)
    assert batch["input_ids"][0].tolist() == [2, 5, 6, 7, 8, 9, 10, 3]


def test_pairs_have_two_token_types(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    classification: MakeSpec,
    ranks: MakeRanks,
) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [{"p": "a b", "h": "c", "y": 1}, {"p": "d", "h": "e f", "y": 0}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    spec = classification(path, path, text_column="p", pair_column="h", label_column="y", batch_size=2)
    data = build_data(spec, tokenizer, tmp_path / "cache", ranks())
    (batch,) = list(data.eval)
    assert batch["input_ids"].tolist() == [[2, 5, 6, 3, 7, 3], [2, 8, 3, 9, 10, 3]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]]
    assert data.labels == ("0", "1")


def test_a_gpu_gets_multiples_of_eight(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [([2, 5, 3], [0, 0, 0]), ([2] * 9, [0] * 9)]
    for device, width in (("cpu", 9), ("cuda", 16)):
        assert Padding(tokenizer, torch.device(device)).batch(rows, [0, 1])["input_ids"].shape == (2, width)


def test_whole_numbers_sort_as_numbers() -> None:
    assert sort_labels(["10", "9", "2", "9"]) == ("2", "9", "10")
    assert sort_labels(["10", "9", "x"]) == ("10", "9", "x")


def test_the_specs_order_of_labels_wins(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    classification: MakeSpec,
    ranks: MakeRanks,
    train: Path,
) -> None:
    spec = classification(train, train, labels=("good", "fine", "bad", "unused"))
    data = build_data(spec, tokenizer, tmp_path / "cache", ranks())
    assert data.labels == ("good", "fine", "bad", "unused")
    (batch,) = list(data.eval)
    assert batch["labels"].tolist() == [0, 2, 0, 1]


def test_a_label_unknown_to_training_is_named(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    classification: MakeSpec,
    ranks: MakeRanks,
    train: Path,
) -> None:
    other = _tsv(tmp_path / "eval.tsv", "a\tgood", "b\tawful")
    with pytest.raises(DataError, match=r"task\.data\.eval: label 'awful' is not among .* 'bad', 'fine', 'good'"):
        build_data(classification(train, other), tokenizer, tmp_path / "cache", ranks())


def test_a_missing_label_names_its_row(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    classification: MakeSpec,
    ranks: MakeRanks,
    train: Path,
) -> None:
    holed = _tsv(tmp_path / "t.tsv", "a\tgood", "b\t")
    with pytest.raises(DataError, match=r"t\.tsv.*: row 2 has no label in column 'label'"):
        build_data(classification(holed, train), tokenizer, tmp_path / "cache", ranks())


@pytest.mark.parametrize("value", ["null", "NaN"])
def test_a_null_label_in_json_is_missing_too(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    classification: MakeSpec,
    ranks: MakeRanks,
    train: Path,
    value: Any,
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"text": "a", "label": 1.0}}\n{{"text": "b", "label": {value}}}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"row 2 has no label|cannot be read"):
        build_data(classification(path, train), tokenizer, tmp_path / "cache", ranks())


def test_a_missing_text_names_row_and_column(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    classification: MakeSpec,
    ranks: MakeRanks,
    train: Path,
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a", "label": 1}\n{"text": null, "label": 0}\n', encoding="utf-8")
    with pytest.raises(DataError, match="row 2, column 'text' holds None, not text"):
        build_data(classification(path, train), tokenizer, tmp_path / "cache", ranks())


def test_one_class_is_nothing_to_learn(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    classification: MakeSpec,
    ranks: MakeRanks,
) -> None:
    path = _tsv(tmp_path / "t.tsv", "a\tsame", "b\tsame")
    with pytest.raises(DataError, match="at least two labels, got 'same'"):
        build_data(classification(path, path), tokenizer, tmp_path / "cache", ranks())


def test_an_unknown_column_lists_those_that_exist(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    classification: MakeSpec,
    ranks: MakeRanks,
    train: Path,
) -> None:
    with pytest.raises(DataError, match=r"has no column 'sentence'; it has 'text', 'label'"):
        build_data(classification(train, train, text_column="sentence"), tokenizer, tmp_path / "c", ranks())


def test_words_that_look_like_numbers_or_nulls_stay_text(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    classification: MakeSpec,
    ranks: MakeRanks,
) -> None:
    path = _tsv(tmp_path / "t.tsv", "a\tNA", "b\t007", 'c "d\tNone')
    data = build_data(classification(path, path), tokenizer, tmp_path / "cache", ranks())
    assert data.labels == ("007", "NA", "None")
    (batch,) = list(data.eval)
    assert batch["input_ids"][2].tolist() == [2, 7, 1, 8, 3]  # the quote is a word of its own: [UNK]


def test_a_second_run_tokenises_nothing(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    classification: MakeSpec,
    ranks: MakeRanks,
    train: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = build_data(classification(train, train), tokenizer, tmp_path / "cache", ranks())

    def never(*_args: object) -> None:
        raise AssertionError("tokenised again")

    monkeypatch.setattr(classification_module, "RowReader", never)
    again = build_data(classification(train, train), tokenizer, tmp_path / "cache", ranks())
    assert again.digest == first.digest
    assert again.train.at(1)[0]["input_ids"].tolist() == first.train.at(1)[0]["input_ids"].tolist()


@pytest.mark.parametrize("world_size", [2, 4])
def test_every_number_of_ranks_sees_the_same_rows(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    classification: MakeSpec,
    ranks: MakeRanks,
    world_size: int,
) -> None:
    path = _tsv(tmp_path / "t.tsv", *(f"{'a ' * (1 + i % 5)}\t{i}" for i in range(13)))  # the label tells the row

    def labels(world: int) -> list[list[int]]:
        spec = classification(path, path, batch_size=4, world_size=world)
        datas = [build_data(spec, tokenizer, tmp_path / "cache", ranks(r, world)) for r in range(world)]
        return [[n for d in datas for batch in d.train.at(s) for n in batch["labels"].tolist()] for s in range(8)]

    alone = labels(1)
    assert labels(world_size) == alone
    assert sorted([row for step in alone for row in step][:13]) == list(range(13))


def test_a_batch_larger_than_the_split_wraps_around(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    classification: MakeSpec,
    ranks: MakeRanks,
    train: Path,
) -> None:
    data = build_data(classification(train, train, batch_size=10), tokenizer, tmp_path / "cache", ranks())
    labels = data.train.at(0)[0]["labels"].tolist()
    assert sorted(labels[:4]) == sorted(labels[4:8]) == [0, 1, 2, 2]
    assert len(labels) == 10
