"""Classify texts, or pairs of texts."""

from typing import Literal, Self

from pydantic import Field, model_validator

from prunus.configs.tasks.data_source import DataSource
from prunus.configs.values.base import Strict


class ClassificationData(Strict):
    """Labelled sentences, or pairs of sentences."""

    train: DataSource
    """Labelled rows to train on."""
    eval: DataSource
    """Labelled rows for ``eval/accuracy`` and ``eval/f1_macro``."""
    text_column: str = "text"
    """Column of the sentence, or of the first of a pair."""
    pair_column: str | None = None
    """Second sentence (MNLI, QQP, ...); None for single sentences."""
    label_column: str = "label"
    """Column of the label: a word or a number."""
    sequence_length: int = Field(default=128, ge=8)
    """Longer inputs are cut to so many tokens."""
    group_by_length: bool = False
    """Batches of rows of about the same length: less padding, the same rows per epoch. Not with ``streaming``."""
    streaming: bool = False
    """Read as a stream: needs ``train.num_steps`` and ``task.labels``; rows of the split are not counted."""

    @property
    def sources(self) -> dict[str, DataSource]:
        """Place in ``task.data`` -> source."""
        return {"train": self.train, "eval": self.eval}

    @model_validator(mode="after")
    def _lengths_are_known(self) -> Self:
        if self.group_by_length and self.streaming:
            raise ValueError("group_by_length needs the lengths of all rows, which a stream does not know; drop one")
        return self


class Classification(Strict):
    """Sequence classification; accuracy and macro F1 on the eval split."""

    name: Literal["classification"] = "classification"
    """Selects this task."""
    data: ClassificationData
    """Labelled rows to train on and to evaluate on."""
    labels: tuple[str, ...] = ()
    """Names of the classes in order; empty: the sorted values found in the train split."""

    @model_validator(mode="after")
    def _different_labels(self) -> Self:
        twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
        if twice:
            raise ValueError(f"labels names a class twice: {', '.join(twice)}; name each once")
        return self
