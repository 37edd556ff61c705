"""The two bases of every type in this room: strict for people, lenient for our own older records."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """What a person writes: frozen, unknown keys refused, NaN and infinity refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Record(BaseModel):
    """What one of our processes writes for another: frozen, keys of newer writers ignored."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, use_attribute_docstrings=True
    )


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
"""A share in [0, 1]."""

Sparsity = Annotated[float, Field(ge=0.0, lt=1.0)]
"""A share removed in [0, 1): a tensor with nothing left cannot be trained."""

Window = tuple[Fraction, Fraction]
"""(begin, end) as fractions of the job's optimizer steps, begin <= end."""
