"""What becomes of a job's model."""

import re

from pydantic import Field, field_validator

from prunus.configs.values.base import Strict


class Output(Strict):
    """What a job leaves beside its metrics."""

    register_as: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name in the MLflow model registry; None: not registered."""
    alias: str = Field(default="current", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Alias set on the new registry version. MLflow keeps ``latest`` and ``v1``, ``v2``, ... for itself."""

    @field_validator("alias")
    @classmethod
    def _free(cls, alias: str) -> str:
        if re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
            raise ValueError(f"the alias {alias!r} is reserved by MLflow; use another word, for example current")
        return alias
