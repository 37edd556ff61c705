"""Masked language modelling (arXiv 1810.04805)."""

from typing import Literal

from pydantic import Field

from prunus.configs.tasks.data_source import DataSource
from prunus.configs.values.base import Strict


class MaskedLMData(Strict):
    """Text for masked language modelling, tokenised and packed once, cached by content hash."""

    train: DataSource
    """Text to train on."""
    eval: DataSource | None = None
    """Held-out text for ``eval/loss``; without it no evaluation runs."""
    text_column: str = "text"
    """Column of the text, in files that have columns."""
    sequence_length: int = Field(default=128, ge=8)
    """Tokens per packed sequence, special tokens included. Paper: 512."""
    streaming: bool = False
    """Read as a stream (data larger than disk): needs ``train.num_steps``, is not cached."""
    max_eval_sequences: int | None = Field(default=None, ge=1)
    """Evaluate on the first so many packed sequences; None for all."""

    @property
    def sources(self) -> dict[str, DataSource]:
        """Place in ``task.data`` -> source."""
        return {"train": self.train, **({"eval": self.eval} if self.eval else {})}


class MaskedLM(Strict):
    """Masked language modelling (BERT, arXiv 1810.04805 section 3.1): 80% [MASK], 10% random, 10% unchanged."""

    name: Literal["masked_lm"] = "masked_lm"
    """Selects this task."""
    data: MaskedLMData
    """Text to train on and to evaluate on."""
    mask_probability: float = Field(default=0.15, gt=0.0, le=1.0)
    """Share of the tokens to predict, in (0, 1]: with none there is no loss. Paper: 0.15."""
