"""What comes out while a job runs: its heartbeat, and how much MLflow has taken."""

from pathlib import Path
from typing import Self

from pydantic import Field

from prunus.configs.values.base import Record


class Progress(Record):
    """Written by rank 0 every few seconds, atomically; also the attempt's heartbeat."""

    attempt_id: str
    time: float
    """Unix seconds of writing."""
    phase: str
    """starting, data, training, evaluating, saving, publishing."""
    step: int = 0
    num_steps: int | None = None
    eta_s: float | None = None
    """Seconds until the last step at the present pace."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Latest value of each curve."""


class SpoolCursor(Record):
    """How much of a job's spool is in MLflow: ``tracking/cursor.json``, written by what carries it over."""

    offset: int = Field(default=0, ge=0)
    """Bytes from the spool's beginning that MLflow has; the spool's size: everything."""
    run_id: str | None = None
    """MLflow run, once MLflow has been reached."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a cursor. Missing or unreadable means the beginning: what is sent twice, MLflow keeps once."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            return cls()
