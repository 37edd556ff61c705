"""Which weights of a model a method may remove."""

import re

from pydantic import field_validator

from prunus.configs.values.base import Strict


class Prunable(Strict):
    """Which weights a method may remove."""

    include: tuple[str, ...] = (r".*",)
    """Regular expressions (``re.search``) over weight names; a weight is taken if one of them matches. By
    default every ``nn.Linear.weight`` inside the encoder: heads, pooler and embeddings are out already."""

    exclude: tuple[str, ...] = ()
    """Regular expressions; a weight is left dense if one of them matches. Each must match something."""

    biases: bool = False
    """Take the biases of the chosen layers too (PARP does). Only for pattern unstructured."""

    @field_validator("include", "exclude")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {pattern!r} ({error})") from error
        return patterns


class WithBiases(Prunable):
    """As above, biases taken."""

    biases: bool = True
    """Take the biases of the chosen layers, too (paper)."""
