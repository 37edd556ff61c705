"""Data of the task ``classification``: labelled texts or pairs, cut to a length and padded per micro-batch.

On disk a split is ragged: all tokens in one run, the bounds of the rows, and per row the number of its label among
the split's own label values. Which class a value is, the job decides when it opens the split.
"""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from prunus.configs import JobSpec
from prunus.configs.tasks.classification import Classification, ClassificationData
from prunus.configs.tasks.data_source import DataSource
from prunus.jobs.data.pipeline.batches import Batch, EvalBatches, ShuffledBatches, StepBatches, TaskData
from prunus.jobs.data.pipeline.cache import (
    content_key,
    entry,
    open_array,
    read_meta,
    shared_entry,
    token_dtype,
    tokenizer_digest,
)
from prunus.jobs.data.pipeline.order import ByLength, Indices, Layout
from prunus.jobs.data.pipeline.rows import Rows, find_rows
from prunus.jobs.data.pipeline.stream import StreamedBatches
from prunus.jobs.data.text.packing import ROWS_PER_CALL, plain_encoder
from prunus.jobs.errors import DataError
from prunus.jobs.ranks import Ranks


class RowReader:
    """Turns rows of a split into tokens and label values."""

    def __init__(self, rows: Rows, data: ClassificationData, tokenizer: PreTrainedTokenizerBase) -> None:
        self._rows = rows
        self._texts = (data.text_column,) if data.pair_column is None else (data.text_column, data.pair_column)
        self._label = data.label_column
        self.columns = (*self._texts, data.label_column)
        self._names = rows.class_names(data.label_column)
        self.encoder: Tokenizer = plain_encoder(tokenizer)
        self.encoder.enable_truncation(data.sequence_length)

    def check(self, rows: list[dict[str, Any]], first_row: int) -> list[tuple[Any, str]]:
        """Return (text or pair, label) of each row; ``first_row`` counts from 1.

        Raises:
            DataError: A text or a label is missing, or a text is no text.
        """
        checked = []
        for number, row in enumerate(rows, first_row):
            texts = tuple(row[column] for column in self._texts)
            for column, text in zip(self._texts, texts, strict=True):
                if not isinstance(text, str):
                    raise DataError(
                        f"{self._rows.name}: row {number}, column {column!r} holds {text!r}, not text; correct the row "
                        f"or choose another column"
                    )
            checked.append((texts if len(texts) == 2 else texts[0], self._label_of(row[self._label], number)))
        return checked

    def encode(self, inputs: list[Any]) -> list[tuple[list[int], list[int]]]:
        """Return token ids and token types of each text or pair."""
        return [(encoding.ids, encoding.type_ids) for encoding in self.encoder.encode_batch_fast(inputs)]

    def _label_of(self, value: Any, row: int) -> str:
        if value is None or value == "" or value != value:
            raise DataError(
                f"{self._rows.name}: row {row} has no label in column {self._label!r}; remove the row or fill it in"
            )
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(self._names):
            return self._names[value]
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


class LabelledSequences:
    """A tokenised split on disk, with its labels as class numbers."""

    def __init__(self, folder: Path, labels: tuple[str, ...], padding: "Padding", where: str) -> None:
        meta = read_meta(folder)
        count, num_tokens = meta["count"], meta["num_tokens"]
        self._bounds = open_array(folder, "bounds.bin", np.int64, (count + 1,))
        self._tokens = open_array(folder, "tokens.bin", meta["dtype"], (num_tokens,))
        self._types = open_array(folder, "types.bin", np.uint8, (num_tokens,))
        number_of = class_numbers(meta["values"], labels, where)
        self._labels_N = number_of[open_array(folder, "labels.bin", np.int32, (count,))]
        self._padding = padding

    def __len__(self) -> int:
        return len(self._labels_N)

    @property
    def lengths_N(self) -> npt.NDArray[np.int64]:
        """Tokens of each row."""
        return np.diff(self._bounds)

    def collate(self, indices_B: Indices, epochs_B: Indices) -> Batch:  # noqa: ARG002 - nothing here is random
        """Return these rows, padded to the longest."""
        spans = [slice(self._bounds[index], self._bounds[index + 1]) for index in indices_B]
        rows = [(self._tokens[span], self._types[span]) for span in spans]
        return self._padding.batch(rows, self._labels_N[indices_B])


class LabellingStage:
    """Tokenises labelled rows of a stream where they are used."""

    def __init__(self, reader: RowReader, labels: tuple[str, ...], padding: "Padding", where: str) -> None:
        self._reader = reader
        self._labels = labels
        self._padding = padding
        self._where = where
        self.columns = reader.columns

    def start(self, state: dict[str, Any]) -> None:
        """Nothing is carried from window to window."""

    def state(self) -> dict[str, Any]:
        """Return nothing: see :meth:`start`."""
        return {}

    def items(self, rows: list[dict[str, Any]], first_row: int) -> list[tuple[Any, int]]:
        """Return (text or pair, class number) of each row."""
        inputs, labels = zip(*self._reader.check(rows, first_row), strict=True)
        return list(zip(inputs, class_numbers(list(labels), self._labels, self._where).tolist(), strict=True))

    def collate(self, items: list[tuple[int, int, Any]]) -> Batch:
        """Tokenise rows and pad them to the longest."""
        encoded = self._reader.encode([text for _, _, (text, _) in items])
        return self._padding.batch(encoded, np.asarray([label for _, _, (_, label) in items], dtype=np.int64))


class Padding:
    """Joins rows of several lengths to a batch."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, device: torch.device) -> None:
        self._pad_id = int(tokenizer.pad_token_id or 0)
        self._pad_type = int(getattr(tokenizer, "pad_token_type_id", 0) or 0)
        self._at_start = tokenizer.padding_side == "left"  # XLNet classifies by the last position
        self._with_types = "token_type_ids" in tokenizer.model_input_names
        # Tensor cores want multiples of 8; a CPU only pays for them.
        self._multiple = 8 if device.type == "cuda" else 1

    def batch(self, rows: list[tuple[Any, Any]], labels_B: npt.NDArray[np.int64]) -> Batch:
        """Pad (tokens, types) of each row, at the end or wherever the tokenizer pads."""
        longest = max(len(ids) for ids, _ in rows)
        shape = (len(rows), -(-longest // self._multiple) * self._multiple)
        input_ids_BL = np.full(shape, self._pad_id, dtype=np.int64)
        attended_BL, types_BL = np.zeros(shape, dtype=np.int64), np.full(shape, self._pad_type, dtype=np.int64)
        for number, (ids, types) in enumerate(rows):
            start = shape[1] - len(ids) if self._at_start else 0
            here = slice(start, start + len(ids))
            input_ids_BL[number, here] = ids
            attended_BL[number, here] = 1
            types_BL[number, here] = types
        batch = {
            "input_ids": torch.from_numpy(input_ids_BL),
            "attention_mask": torch.from_numpy(attended_BL),
            "labels": torch.from_numpy(np.asarray(labels_B, dtype=np.int64)),
        }
        if self._with_types:
            batch["token_type_ids"] = torch.from_numpy(types_BL)
        return batch


def sort_labels(values: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct values in order: by number if all are whole numbers, else by name."""
    distinct = sorted(set(values))
    try:
        return tuple(sorted(distinct, key=int))
    except ValueError:
        return tuple(distinct)


def class_numbers(values: list[str], labels: tuple[str, ...], where: str) -> npt.NDArray[np.int64]:
    """Return the class number of each label value.

    Raises:
        DataError: A value is none of the labels.
    """
    number_of = {label: number for number, label in enumerate(labels)}
    unknown = sorted(set(values) - set(labels))
    if unknown:
        raise DataError(
            f"{where}: label {unknown[0]!r} is not among the known labels {', '.join(map(repr, labels))}"
            + (f" (nor are {len(unknown) - 1} others)" if len(unknown) > 1 else "")
            + "; correct the data or task.labels"
        )
    return np.asarray([number_of[value] for value in values], dtype=np.int64)


def classification_data(spec: JobSpec, tokenizer: PreTrainedTokenizerBase, cache_dir: Path, ranks: Ranks) -> TaskData:
    """Prepare both splits, or find them in the cache.

    Raises:
        DataError: Data or labels cannot serve the task.
        StorageError: The cache cannot be written.
    """
    task = spec.task
    assert isinstance(task, Classification)
    data = task.data

    def prepare(source: DataSource, where: str) -> Path:
        def find() -> Path:
            rows = find_rows(source, where, streaming=data.streaming)
            columns = (data.text_column, data.pair_column, data.label_column)
            key = content_key("rows", rows.fingerprint(), tokenizer_digest(tokenizer), data.sequence_length, *columns)
            return entry(cache_dir, key, lambda folder: write_rows(folder, RowReader(rows, data, tokenizer), rows))

        return shared_entry(ranks, find)

    layout = Layout(spec.train.batch_size, spec.accumulation_steps, ranks.rank, ranks.world_size)
    padding = Padding(tokenizer, ranks.device)
    train: StepBatches
    if data.streaming:
        labels = task.labels
        if not labels:
            raise DataError(
                "task.data.streaming reads no split to its end, so give the names of the classes: task.labels"
            )
        rows = find_rows(data.train, "task.data.train", streaming=True)
        stage = LabellingStage(RowReader(rows, data, tokenizer), labels, padding, "task.data.train")
        train = StreamedBatches(rows, stage, layout, spec.train.seed)
        num_train, parts = (
            None,
            [rows.listing(), tokenizer_digest(tokenizer), str(data.sequence_length), *stage.columns],
        )
    else:
        folder = prepare(data.train, "task.data.train")
        labels = task.labels or sort_labels(read_meta(folder)["values"])
        stored = LabelledSequences(folder, labels, padding, "task.data.train")
        by_length = ByLength(stored.lengths_N, layout.batch_size) if data.group_by_length else None
        train = ShuffledBatches(stored, layout, spec.train.seed, by_length)
        num_train, parts = len(stored), [folder.name]
    require_two(labels)
    eval_folder = prepare(data.eval, "task.data.eval")
    held_out = LabelledSequences(eval_folder, labels, padding, "task.data.eval")
    evaluation = EvalBatches(held_out, spec.micro_batch_size, ranks.rank, ranks.world_size)
    return TaskData(train, evaluation, num_train, labels, content_key(*parts, eval_folder.name, *labels), tokenizer)


def require_two(labels: tuple[str, ...]) -> None:
    """Refuse a task with nothing to tell apart."""
    if len(labels) < 2:
        raise DataError(
            f"classification needs at least two labels, got {', '.join(map(repr, labels)) or 'none'}; check "
            f"task.data.label_column"
        )


def write_rows(folder: Path, reader: RowReader, rows: Rows) -> dict[str, Any]:
    """Tokenise a split into ``folder``; return the meta data."""
    dtype = token_dtype(reader.encoder.get_vocab_size(with_added_tokens=True))
    lengths: list[int] = []
    labels: list[str] = []
    with (folder / "tokens.bin").open("wb") as tokens, (folder / "types.bin").open("wb") as types:
        for batch in rows.read_batches(reader.columns, ROWS_PER_CALL):
            inputs, batch_labels = zip(*reader.check(batch, len(labels) + 1), strict=True)
            labels += batch_labels
            encoded = reader.encode(list(inputs))
            lengths += [len(ids) for ids, _ in encoded]
            np.fromiter(chain.from_iterable(ids for ids, _ in encoded), dtype).tofile(tokens)
            np.fromiter(chain.from_iterable(kinds for _, kinds in encoded), np.uint8).tofile(types)
    values = sort_labels(labels)
    place = {value: number for number, value in enumerate(values)}
    np.asarray([place[label] for label in labels], dtype=np.int32).tofile(folder / "labels.bin")
    np.cumsum([0, *lengths], dtype=np.int64).tofile(folder / "bounds.bin")
    return {"dtype": dtype, "count": len(labels), "num_tokens": sum(lengths), "values": values}
