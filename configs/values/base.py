"""The two bases of every type in this room: strict for people, lenient for our own older records."""

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Strict(BaseModel):
    """What a person writes: frozen, unknown keys refused, NaN and infinity refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, data: Any) -> Any:
        """Refuse ``seed: true``: pydantic would read it as 1."""
        for name, field in cls.model_fields.items() if isinstance(data, dict) else ():
            value = data.get(name)
            values = value if isinstance(value, list | tuple) else [value]
            if any(isinstance(item, bool) for item in values) and _is_number(field.annotation):
                raise ValueError(f"{name} must not be true or false, got {str(value).lower()}; give a value")
        return data


def _is_number(annotation: Any) -> bool:
    """Tell whether a field takes numbers, alone or in a tuple, or None beside them."""
    return annotation is int or annotation is float or any(_is_number(part) for part in get_args(annotation))


class Record(BaseModel):
    """What one of our processes writes for another: frozen, keys of newer writers ignored."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        use_attribute_docstrings=True,
        ser_json_inf_nan="constants",  # a metric may be NaN; the null of the default could not be read back
    )


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
"""A share in [0, 1]."""

Sparsity = Annotated[float, Field(ge=0.0, lt=1.0)]
"""A share removed in [0, 1): a tensor with nothing left cannot be trained."""

BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
"""A decay rate in [0, 1)."""

Window = tuple[Fraction, Fraction]
"""(begin, end) as fractions of the job's optimizer steps, begin <= end."""
