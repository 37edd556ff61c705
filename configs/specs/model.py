"""Where a job's model starts from."""

from typing import Any, Literal

from pydantic import Field

from prunus.configs.values.base import Strict
from prunus.configs.values.sources import Source


class ModelSpec(Strict):
    """The network and its starting weights."""

    source: Source = Field(alias="from")
    """job:NAME, models:/NAME@ALIAS, a directory, or a hub id."""
    init: Literal["pretrained", "random"] = "pretrained"
    """``random``: take only the configuration and tokenizer of the source."""
    head: Literal["keep", "new"] = "keep"
    """``new``: begin with a random head, whatever head the checkpoint has (another language's vocabulary, other
    classes). ``keep``: use the checkpoint's where there is one; one that does not fit is refused."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the model's configuration, for example ``{hidden_dropout_prob: 0.0}``. Unknown keys are refused
    when the job starts."""
