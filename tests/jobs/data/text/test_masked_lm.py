"""masked_lm from file to batch, on sequences worked by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from prunus.jobs.data.build import build_data
from prunus.jobs.data.text import masked_lm as masked_lm_module
from prunus.jobs.data.text import packing
from prunus.jobs.data.text.packing import Frame, Packer
from prunus.jobs.errors import DataError
from tests.jobs.lone_rank import MakeRanks, MakeSpec


def _originals(batch: Any) -> list[list[int]]:
    """Undo the masking."""
    return torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"]).tolist()


def _write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_three_lines_pack_to_two_sequences(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, masked_lm: MakeSpec, ranks: MakeRanks
) -> None:
    # a b c [SEP] d e | [SEP] f g h i j | k (dropped): six tokens between [CLS] 2 and [SEP] 3; a is 5.
    text = _write(tmp_path / "t.txt", "a b c", "", "d e", "f g h i j k")
    data = build_data(masked_lm(text, batch_size=2), tokenizer, tmp_path / "cache", ranks())
    assert data.num_train_sequences == 2
    (batch,) = data.train.at(0)
    assert sorted(_originals(batch)) == [[2, 3, 10, 11, 12, 13, 14, 3], [2, 5, 6, 7, 3, 8, 9, 3]]
    assert batch["attention_mask"].tolist() == [[1] * 8] * 2
    assert batch["token_type_ids"].tolist() == [[0] * 8] * 2
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_the_only_short_piece_is_kept_and_padded(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, masked_lm: MakeSpec, ranks: MakeRanks
) -> None:
    text = _write(tmp_path / "t.txt", "a b c", "d e f g")
    spec = masked_lm(text, sequence_length=16, batch_size=1)
    (batch,) = build_data(spec, tokenizer, tmp_path / "cache", ranks()).train.at(0)
    assert _originals(batch) == [[2, 5, 6, 7, 3, 8, 9, 10, 11, 3, 0, 0, 0, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 10 + [0] * 6]


def test_padding_and_unknown_words_are_never_predicted(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, masked_lm: MakeSpec, ranks: MakeRanks
) -> None:
    spec = masked_lm(_write(tmp_path / "t.txt", "a what b c d e f g"), sequence_length=16, batch_size=1)
    spec = spec.model_copy(update={"task": spec.task.model_copy(update={"mask_probability": 1.0})})
    (batch,) = build_data(spec, tokenizer, tmp_path / "cache", ranks()).train.at(0)
    assert batch["labels"].tolist() == [[-100, 5, -100, 6, 7, 8, 9, 10, 11] + [-100] * 7]


def test_packing_in_parts_gives_the_same_sequences(tokenizer: PreTrainedTokenizerFast) -> None:
    frame = Frame.of(tokenizer, 8)
    texts = [list(range(5, 5 + n)) for n in (3, 0, 9, 1, 14, 2)]
    at_once = Packer(frame).add(texts)
    packer = Packer(frame)
    in_parts = [packer.add([text]) for text in texts]
    assert np.concatenate(in_parts).tolist() == at_once.tolist()
    assert len(at_once) == (sum(map(len, texts)) + 4) // 6  # five texts, four [SEP] between them


@pytest.mark.parametrize("world_size", [2, 4])
def test_every_number_of_ranks_sees_the_same_global_batches(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    masked_lm: MakeSpec,
    ranks: MakeRanks,
    letters: Path,
    world_size: int,
) -> None:
    def rows(world: int, micro: int | None = None) -> list[list[tuple]]:
        spec = masked_lm(letters, batch_size=8, world_size=world, micro_batch_size=micro)
        datas = [build_data(spec, tokenizer, tmp_path / "cache", ranks(r, world)) for r in range(world)]
        steps = []
        for step in range(6):  # more than one epoch of the split
            micros = [batch for data in datas for batch in data.train.at(step)]
            assert len(micros) == world * spec.accumulation_steps
            both = [torch.cat([b["input_ids"], b["labels"]], dim=1).tolist() for b in micros]
            steps.append([row for part in both for row in part])
        return steps

    alone = rows(1)
    assert rows(world_size) == alone
    assert rows(world_size, micro=1) == alone
    assert alone[0] != alone[1]


def test_masks_change_from_epoch_to_epoch_but_not_in_evaluation(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    masked_lm: MakeSpec,
    ranks: MakeRanks,
    letters: Path,
) -> None:
    data = build_data(masked_lm(letters, letters, batch_size=1), tokenizer, tmp_path / "cache", ranks())
    n = data.num_train_sequences
    assert n is not None
    first: dict[tuple[int, ...], Any] = {}
    second: dict[tuple[int, ...], Any] = {}
    for step in range(2 * n):
        (batch,) = data.train.at(step)
        (first if step < n else second)[tuple(_originals(batch)[0])] = batch["labels"].tolist()
    assert len(first) == n
    assert first.keys() == second.keys()
    assert any(first[row] != second[row] for row in first)
    passes = [[(b["input_ids"].tolist(), b["labels"].tolist()) for b in data.eval] for _ in range(2)]
    assert passes[0] == passes[1]


def test_evaluation_does_not_depend_on_the_seed(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    masked_lm: MakeSpec,
    ranks: MakeRanks,
    letters: Path,
) -> None:
    labels = []
    for seed in (1, 2):
        data = build_data(masked_lm(letters, letters, seed=seed), tokenizer, tmp_path / "cache", ranks())
        labels.append([batch["labels"].tolist() for batch in data.eval])
    assert labels[0] == labels[1]


def test_evaluation_is_shared_out_evenly_and_can_be_cut(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    masked_lm: MakeSpec,
    ranks: MakeRanks,
    letters: Path,
) -> None:
    spec = masked_lm(letters, letters, max_eval_sequences=5, world_size=2, batch_size=4)
    halves = [build_data(spec, tokenizer, tmp_path / "c", ranks(r, 2)).eval for r in (0, 1)]
    batches = [list(half) for half in halves]
    assert [len(half) for half in halves] == [len(part) for part in batches] == [2, 2]
    assert sum(float(b["weight"].sum()) for part in batches for b in part) == 5.0
    real = {
        tuple(row) for part in batches for b in part for row, w in zip(_originals(b), b["weight"], strict=True) if w
    }
    assert len(real) == 5


def test_without_an_eval_split_there_is_no_evaluation(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    masked_lm: MakeSpec,
    ranks: MakeRanks,
    letters: Path,
) -> None:
    assert build_data(masked_lm(letters), tokenizer, tmp_path / "c", ranks()).eval is None


def test_a_second_run_tokenises_nothing(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    masked_lm: MakeSpec,
    ranks: MakeRanks,
    letters: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = build_data(masked_lm(letters, letters), tokenizer, tmp_path / "cache", ranks())

    def never(*_args: object) -> None:
        raise AssertionError("tokenised again")

    monkeypatch.setattr(packing, "encode", never)
    monkeypatch.setattr(masked_lm_module, "plain_encoder", never)
    moved = tmp_path / "moved.txt"
    moved.write_bytes(letters.read_bytes())  # the content counts, not the path
    again = build_data(masked_lm(moved, moved), tokenizer, tmp_path / "cache", ranks())
    assert again.digest == first.digest
    assert again.train.at(3)[0]["input_ids"].tolist() == first.train.at(3)[0]["input_ids"].tolist()


def test_other_text_length_or_tokenizer_is_prepared_anew(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    masked_lm: MakeSpec,
    ranks: MakeRanks,
    letters: Path,
) -> None:
    def digest(spec: Any, with_tokenizer: Any = tokenizer) -> str:
        return build_data(spec, with_tokenizer, tmp_path / "cache", ranks()).digest

    other = json.loads(tokenizer.backend_tokenizer.to_str())
    other["model"]["vocab"]["a"], other["model"]["vocab"]["b"] = 6, 5
    swapped = PreTrainedTokenizerFast(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(json.dumps(other)),
        pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]", unk_token="[UNK]",
    )  # fmt: skip
    changed = _write(tmp_path / "changed.txt", *letters.read_text().splitlines()[1:])
    found = [
        digest(masked_lm(letters)),
        digest(masked_lm(letters, sequence_length=9)),
        digest(masked_lm(changed)),
        digest(masked_lm(letters), swapped),
    ]
    assert len(set(found)) == 4


def test_state_of_a_tokenizers_last_call_does_not_matter(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    masked_lm: MakeSpec,
    ranks: MakeRanks,
    letters: Path,
) -> None:
    first = build_data(masked_lm(letters), tokenizer, tmp_path / "cache", ranks())
    tokenizer("a b c", truncation=True, max_length=3, padding="max_length")
    assert build_data(masked_lm(letters), tokenizer, tmp_path / "cache", ranks()).digest == first.digest


def test_next_to_no_text_is_an_error(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, masked_lm: MakeSpec, ranks: MakeRanks
) -> None:
    with pytest.raises(DataError, match=r"task\.data\.train .*t\.txt.* holds 2 tokens in all; give at least 8"):
        build_data(masked_lm(_write(tmp_path / "t.txt", "a b", "")), tokenizer, tmp_path / "c", ranks())


def test_a_tokenizer_without_a_mask_token_is_an_error(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    masked_lm: MakeSpec,
    ranks: MakeRanks,
    letters: Path,
) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="[PAD]")
    with pytest.raises(DataError, match="needs a tokenizer with a mask token"):
        build_data(masked_lm(letters), bare, tmp_path / "c", ranks())


def test_a_column_of_numbers_is_no_text(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, masked_lm: MakeSpec, ranks: MakeRanks
) -> None:
    path = _write(tmp_path / "t.jsonl", '{"text": 5}')
    with pytest.raises(DataError, match=r"column 'text' holds int 5, not text"):
        build_data(masked_lm(path), tokenizer, tmp_path / "c", ranks())
    assert not any((tmp_path / "c").iterdir())
