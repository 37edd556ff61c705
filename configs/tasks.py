"""What is learned, and from which data."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.base import Strict


class DataSource(Strict):
    """One split: local files or a data set of the Hugging Face hub."""

    files: tuple[str, ...] = ()
    """Paths or globs of text, jsonl, csv, tsv or parquet files, seen by every node. Relative paths are resolved
    against the directory where ``prunus submit`` was called."""
    hub: str | None = None
    """Hub id of a data set, instead of ``files``."""
    config: str | None = None
    """Configuration of the hub data set."""
    split: str = "train"
    """Split of the hub data set, ``datasets`` slicing syntax allowed."""
    header: bool = True
    """csv and tsv: the first line names the columns. If false, columns are named "0", "1", ..."""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if bool(self.files) == bool(self.hub):
            raise ValueError("give exactly one of files and hub")
        return self


class MaskedLMData(Strict):
    """Text for masked language modelling, tokenised and packed once, cached by content hash."""

    train: DataSource
    eval: DataSource | None = None
    """Held-out text for ``eval/loss``; without it no evaluation runs."""
    text_column: str = "text"
    sequence_length: int = Field(default=128, ge=8)
    """Tokens per packed sequence, special tokens included. Paper: 512."""
    streaming: bool = False
    """Read as a stream (data larger than disk): needs ``train.num_steps``, is not cached."""
    max_eval_sequences: int | None = Field(default=None, ge=1)
    """Evaluate on the first so many packed sequences; None for all."""


class MaskedLM(Strict):
    """Masked language modelling (BERT, arXiv 1810.04805 section 3.1): 80% [MASK], 10% random, 10% unchanged."""

    name: Literal["masked_lm"] = "masked_lm"
    data: MaskedLMData
    mask_probability: float = Field(default=0.15, gt=0.0, le=1.0)
    """Share of the tokens to predict, in (0, 1]: with none there is no loss. Paper: 0.15."""


class ClassificationData(Strict):
    """Labelled sentences, or pairs of sentences."""

    train: DataSource
    eval: DataSource
    text_column: str = "text"
    pair_column: str | None = None
    """Second sentence (MNLI, QQP, ...); None for single sentences."""
    label_column: str = "label"
    sequence_length: int = Field(default=128, ge=8)
    """Longer inputs are cut to so many tokens."""
    group_by_length: bool = False
    """Batches of rows of about the same length: less padding, the same rows per epoch. Not with ``streaming``."""
    streaming: bool = False
    """Read as a stream: needs ``train.num_steps`` and ``task.labels``; rows of the split are not counted."""

    @model_validator(mode="after")
    def _lengths_are_known(self) -> Self:
        if self.group_by_length and self.streaming:
            raise ValueError("group_by_length needs the lengths of all rows, which a stream does not know; drop one")
        return self


class Classification(Strict):
    """Sequence classification; accuracy and macro F1 on the eval split."""

    name: Literal["classification"] = "classification"
    data: ClassificationData
    labels: tuple[str, ...] = ()
    """Names of the classes in order; empty: the sorted values found in the train split."""

    @model_validator(mode="after")
    def _different_labels(self) -> Self:
        twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
        if twice:
            raise ValueError(f"labels names a class twice: {', '.join(twice)}; name each once")
        return self


TaskSpec = Annotated[MaskedLM | Classification, Field(discriminator="name")]
