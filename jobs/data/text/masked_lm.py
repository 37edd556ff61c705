"""Data of the task ``masked_lm``: packed sequences, masked anew in every epoch. Shapes: B sequences, L tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from prunus.configs import JobSpec
from prunus.configs.tasks.data_source import DataSource
from prunus.configs.tasks.masked_lm import MaskedLM
from prunus.jobs.data.pipeline.batches import EVAL_EPOCH, Batch, EvalBatches, ShuffledBatches, StepBatches, TaskData
from prunus.jobs.data.pipeline.cache import content_key, entry, shared_entry, tokenizer_digest
from prunus.jobs.data.pipeline.order import Indices, Layout
from prunus.jobs.data.pipeline.rows import Rows, find_rows
from prunus.jobs.data.pipeline.stream import StreamedBatches
from prunus.jobs.data.text.masking import mask_tokens, sequence_keys
from prunus.jobs.data.text.packing import Frame, Packer, encode, open_packed, plain_encoder, write_packed
from prunus.jobs.errors import DataError
from prunus.jobs.ranks import Ranks

_EVAL_SEED = 0  # fixed for all jobs, so that their eval/loss counts the same tokens


class Masking:
    """Turns plain sequences into inputs and labels."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, probability: float, seed: int) -> None:
        if tokenizer.mask_token_id is None:
            raise DataError(
                f"task masked_lm needs a tokenizer with a mask token; {type(tokenizer).__name__} has none: use the "
                f"tokenizer of a masked language model"
            )
        self._probability = probability
        self._seed = seed
        self._mask_id = int(tokenizer.mask_token_id)
        self._vocab_size = len(tokenizer)
        self._with_types = "token_type_ids" in tokenizer.model_input_names
        self._is_special_V = np.zeros(self._vocab_size, dtype=np.bool_)
        self._is_special_V[list(tokenizer.all_special_ids)] = True

    def batch(self, input_ids_BL: Indices, attended_BL: Indices, indices_B: Indices, epochs_B: Indices) -> Batch:
        """Mask sequences; what is hidden depends on seed, epoch and index of each."""
        seeds = _EVAL_SEED if epochs_B[0] == EVAL_EPOCH else self._seed
        special_BL = self._is_special_V[input_ids_BL] | (attended_BL == 0)
        keys_B = sequence_keys(seeds, epochs_B, indices_B)
        inputs_BL, labels_BL = mask_tokens(
            input_ids_BL,
            special_BL,
            keys_B,
            probability=self._probability,
            mask_id=self._mask_id,
            vocab_size=self._vocab_size,
        )
        batch = {
            "input_ids": torch.from_numpy(inputs_BL),
            "attention_mask": torch.from_numpy(attended_BL),
            "labels": torch.from_numpy(labels_BL),
        }
        if self._with_types:
            batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
        return batch


class PackedSequences:
    """A packed split on disk."""

    def __init__(self, folder: Path, length: int, masking: Masking) -> None:
        self._tokens_NL, self._last_length = open_packed(folder, length)
        self._masking = masking

    def __len__(self) -> int:
        return len(self._tokens_NL)

    def collate(self, indices_B: Indices, epochs_B: Indices) -> Batch:
        """Return these sequences, masked."""
        input_ids_BL = self._tokens_NL[indices_B].astype(np.int64)
        attended_BL = np.ones_like(input_ids_BL)
        if len(self) == 1:  # only a split of one sequence can hold padding
            attended_BL[:, self._last_length :] = 0
        return self._masking.batch(input_ids_BL, attended_BL, indices_B, epochs_B)


class PackingStage:
    """Packs a stream on the fly."""

    def __init__(
        self, rows: Rows, column: str, tokenizer: PreTrainedTokenizerBase, frame: Frame, masking: Masking
    ) -> None:
        self._rows = rows
        self._encoder = plain_encoder(tokenizer)
        self._frame = frame
        self._masking = masking
        self._packer = Packer(frame)
        self.columns = (column,)

    def start(self, state: dict[str, Any]) -> None:
        """Begin an epoch, or take up the tokens that were left over."""
        self._packer = Packer(self._frame, state.get("rest", ()), begun=state.get("begun", False))

    def state(self) -> dict[str, Any]:
        """Return the tokens that no sequence has taken yet."""
        return {"rest": list(self._packer.rest), "begun": self._packer.begun}

    def items(self, rows: list[dict[str, Any]], first_row: int) -> list[Indices]:  # noqa: ARG002 - no row is refused
        """Return the sequences that these rows fill."""
        column = self.columns[0]
        texts = [row[column] for row in rows]
        return list(self._packer.add(encode(self._encoder, texts, self._rows, column)))

    def collate(self, items: list[tuple[int, int, Any]]) -> Batch:
        """Return sequences as a batch, masked."""
        input_ids_BL = np.stack([item for _, _, item in items])
        epochs_B, indices_B = np.array([(epoch, number) for epoch, number, _ in items], dtype=np.int64).T
        return self._masking.batch(input_ids_BL, np.ones_like(input_ids_BL), indices_B, epochs_B)


def masked_lm_data(spec: JobSpec, tokenizer: PreTrainedTokenizerBase, cache_dir: Path, ranks: Ranks) -> TaskData:
    """Prepare both splits, or find them in the cache.

    Raises:
        DataError: Data or tokenizer cannot serve the task.
        StorageError: The cache cannot be written.
    """
    task = spec.task
    assert isinstance(task, MaskedLM)
    data = task.data
    masking = Masking(tokenizer, task.mask_probability, spec.train.seed)
    frame = Frame.of(tokenizer, data.sequence_length)

    def pack(source: DataSource, where: str, limit: int | None) -> Path:
        def find() -> Path:
            rows = find_rows(source, where, streaming=data.streaming)
            settings = (tokenizer_digest(tokenizer), frame.length, data.text_column, limit)
            key = content_key("packed", rows.fingerprint(), *settings)

            def write(folder: Path) -> dict[str, Any]:
                return write_packed(folder, rows, data.text_column, plain_encoder(tokenizer), frame, limit)

            return entry(cache_dir, key, write)

        return shared_entry(ranks, find)

    layout = Layout(spec.train.batch_size, spec.accumulation_steps, ranks.rank, ranks.world_size)
    train: StepBatches
    if data.streaming:
        rows = find_rows(data.train, "task.data.train", streaming=True)
        train = StreamedBatches(
            rows, PackingStage(rows, data.text_column, tokenizer, frame, masking), layout, spec.train.seed
        )
        num_train, parts = None, [rows.listing(), tokenizer_digest(tokenizer), str(frame.length), data.text_column]
    else:
        folder = pack(data.train, "task.data.train", None)
        packed = PackedSequences(folder, frame.length, masking)
        train = ShuffledBatches(packed, layout, spec.train.seed)
        num_train, parts = len(packed), [folder.name]
    evaluation = None
    if data.eval is not None:
        folder = pack(data.eval, "task.data.eval", data.max_eval_sequences)
        held_out = PackedSequences(folder, frame.length, masking)
        evaluation = EvalBatches(held_out, spec.micro_batch_size, ranks.rank, ranks.world_size)
        parts.append(folder.name)
    return TaskData(train, evaluation, num_train, (), content_key(*parts), tokenizer)
