"""What training gets: the micro-batches of a step on this rank, and the evaluation batches. Tensors are on the CPU.

Shapes: B sequences of a micro-batch, L tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from prunus.jobs.data.pipeline.order import ByLength, Indices, Layout, ShuffledEpochs, eval_share

Batch = dict[str, torch.Tensor]
"""``input_ids``, ``attention_mask``, ``token_type_ids`` (where the tokenizer makes them), ``labels``; all int64."""

EVAL_EPOCH = -1
"""Epoch of every evaluation sequence: masks differ from those of training and never change."""


class Processor(Protocol):
    """Tokenizer, or feature extractor with a vocabulary."""

    def save_pretrained(self, save_directory: Any) -> Any:
        """Write it as transformers reads it."""
        ...


class Sequences(Protocol):
    """A split in memory or memory-mapped: sequences by index, as a batch."""

    def __len__(self) -> int: ...

    def collate(self, indices_B: Indices, epochs_B: Indices) -> Batch:
        """Return these sequences as one batch; what is random in it depends on epoch and index only."""
        ...


class StepBatches(ABC):
    """Training batches by optimizer step."""

    @abstractmethod
    def at(self, step: int) -> list[Batch]:
        """Return this rank's micro-batches of a step (0-based), ``accumulation_steps`` of them."""

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the latest step; empty where the step number says it all."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a position of :meth:`state_dict`."""
        assert not state, state


class ShuffledBatches(StepBatches):
    """Batches of a split that can be indexed: a pure function of (seed, step)."""

    def __init__(self, sequences: Sequences, layout: Layout, seed: int, by_length: ByLength | None = None) -> None:
        self._sequences = sequences
        self._layout = layout
        self._epochs = ShuffledEpochs(len(sequences), seed, by_length)

    def at(self, step: int) -> list[Batch]:
        """Return this rank's micro-batches of a step (0-based)."""
        located = [self._epochs.locate(positions) for positions in self._layout.micro_batches(step)]
        return [self._sequences.collate(indices_B, epochs_B) for epochs_B, indices_B in located]


class EvalBatches:
    """This rank's share of an evaluation split, in order, equally many batches on every rank.

    Each real row appears once over all ranks; ``weight`` (B,) float32 is 1 for it and 0 for rows that only fill up.
    """

    def __init__(self, sequences: Sequences, batch_size: int, rank: int, world_size: int) -> None:
        self.num_rows = len(sequences)
        self._sequences = sequences
        self._batch_size = batch_size
        self._rows, self._weights = eval_share(self.num_rows, rank, world_size)

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self._rows), self._batch_size):
            rows_B = self._rows[start : start + self._batch_size]
            batch = self._sequences.collate(rows_B, np.full_like(rows_B, EVAL_EPOCH))
            batch["weight"] = torch.from_numpy(self._weights[start : start + self._batch_size].copy())
            yield batch


@dataclass(frozen=True)
class TaskData:
    """The data of one job on one rank.

    Attributes:
        train: Batches by step.
        eval: Held-out batches, if the spec names a split.
        num_train_sequences: Sequences of one epoch; None for a stream.
        labels: Names of the classes in order; empty for masked_lm.
        digest: sha256 that stands for content, tokenizer and settings of both splits.
        processor: What is saved beside the model, so that others can use it: tokenizer, or feature extractor and
            vocabulary.
        steps_per_epoch: Where steps are no fixed number of sequences: optimizer steps of the first epoch.
        eval_groups: Names of the parts (languages) that the batches' ``group`` numbers; () where there are none.
        facts: What the preparation found (clips, hours, skipped ones), for the run's metrics.
    """

    train: StepBatches
    eval: EvalBatches | None
    num_train_sequences: int | None
    labels: tuple[str, ...]
    digest: str
    processor: Processor
    steps_per_epoch: float | None = None
    eval_groups: tuple[str, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)
