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

from configs import JobSpec
from configs.tasks import Classification, ClassificationData, DataSource
from jobs.data.batches import Batch, EvalBatches, ShuffledBatches, TaskData
from jobs.data.cache import content_key, entry, open_array, read_meta, shared_entry, token_dtype, tokenizer_digest
from jobs.data.order import Indices, Layout
from jobs.data.packing import ROWS_PER_CALL, plain_encoder
from jobs.data.sources import Rows, find_rows
from jobs.errors import DataError
from jobs.ranks import Ranks


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

    def encode(self, batch: dict[str, list[Any]], first_row: int) -> list[tuple[list[int], list[int]]]:
        """Return token ids and token types of each row.

        Raises:
            DataError: A text is missing or no text.
        """
        for column in self._texts:
            for number, text in enumerate(batch[column], first_row):
                if not isinstance(text, str):
                    raise DataError(f"{self._rows.name}: row {number}, column {column!r} holds {text!r}, not text")
        texts = zip(*(batch[column] for column in self._texts), strict=True)
        inputs = [pair if len(pair) == 2 else pair[0] for pair in texts]
        return [(encoding.ids, encoding.type_ids) for encoding in self.encoder.encode_batch_fast(inputs)]

    def label(self, value: Any, row: int) -> str:
        """Return the name of a label value; whole numbers are written without a point.

        Raises:
            DataError: The label is missing.
        """
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

    def collate(self, indices_B: Indices, epochs_B: Indices) -> Batch:  # noqa: ARG002 - nothing here is random
        """Return these rows, padded to the longest."""
        spans = [slice(self._bounds[index], self._bounds[index + 1]) for index in indices_B]
        rows = [(self._tokens[span], self._types[span]) for span in spans]
        return self._padding.batch(rows, self._labels_N[indices_B])


class Padding:
    """Joins rows of several lengths to a batch."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, device: torch.device) -> None:
        self._pad_id = int(tokenizer.pad_token_id or 0)
        self._with_types = "token_type_ids" in tokenizer.model_input_names
        # Tensor cores want multiples of 8; a CPU only pays for them.
        self._multiple = 8 if device.type == "cuda" else 1

    def batch(self, rows: list[tuple[Any, Any]], labels_B: npt.NDArray[np.int64]) -> Batch:
        """Pad (tokens, types) of each row at the end."""
        longest = max(len(ids) for ids, _ in rows)
        shape = (len(rows), -(-longest // self._multiple) * self._multiple)
        input_ids_BL = np.full(shape, self._pad_id, dtype=np.int64)
        attended_BL, types_BL = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for number, (ids, types) in enumerate(rows):
            input_ids_BL[number, : len(ids)] = ids
            attended_BL[number, : len(ids)] = 1
            types_BL[number, : len(ids)] = types
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
            rows = find_rows(source, where)
            columns = (data.text_column, data.pair_column, data.label_column)
            key = content_key("rows", rows.fingerprint(), tokenizer_digest(tokenizer), data.sequence_length, *columns)
            return entry(cache_dir, key, lambda folder: write_rows(folder, RowReader(rows, data, tokenizer), rows))

        return shared_entry(ranks, find)

    train_folder, eval_folder = prepare(data.train, "task.data.train"), prepare(data.eval, "task.data.eval")
    labels = task.labels or sort_labels(read_meta(train_folder)["values"])
    require_two(labels)
    padding = Padding(tokenizer, ranks.device)
    train = LabelledSequences(train_folder, labels, padding, "task.data.train")
    held_out = LabelledSequences(eval_folder, labels, padding, "task.data.eval")
    layout = Layout(spec.train.batch_size, spec.accumulation_steps, ranks.rank, ranks.world_size)
    return TaskData(
        train=ShuffledBatches(train, layout, spec.train.seed),
        eval=EvalBatches(held_out, spec.micro_batch_size, ranks.rank, ranks.world_size),
        num_train_sequences=len(train),
        labels=labels,
        digest=content_key(train_folder.name, eval_folder.name, *labels),
    )


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
            first_row = len(labels) + 1
            labels += [reader.label(value, row) for row, value in enumerate(batch[reader.columns[-1]], first_row)]
            encoded = reader.encode(batch, first_row)
            lengths += [len(ids) for ids, _ in encoded]
            np.fromiter(chain.from_iterable(ids for ids, _ in encoded), dtype).tofile(tokens)
            np.fromiter(chain.from_iterable(kinds for _, kinds in encoded), np.uint8).tofile(types)
    values = sort_labels(labels)
    place = {value: number for number, value in enumerate(values)}
    np.asarray([place[label] for label in labels], dtype=np.int32).tofile(folder / "labels.bin")
    np.cumsum([0, *lengths], dtype=np.int64).tofile(folder / "bounds.bin")
    return {"dtype": dtype, "count": len(labels), "num_tokens": sum(lengths), "values": values}
