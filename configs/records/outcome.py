"""What comes out in the end: why an attempt stopped, and what stays with what it made."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from prunus.configs.values.base import Record


class StopReason(StrEnum):
    """Why an attempt ended. Each class of failure has its own budget of retries."""

    SUCCEEDED = "succeeded"
    USER_ERROR = "user_error"
    """A spec, data or checkpoint that cannot work: never retried."""
    OUT_OF_MEMORY = "out_of_memory"
    STORAGE = "storage"
    """Disk full or storage unreachable: the last committed checkpoint is still good."""
    LAUNCH_FAILED = "launch_failed"
    """The gang never started."""
    WORKER_LOST = "worker_lost"
    """A rank, node or the head died."""
    PREEMPTED = "preempted"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    INTERNAL = "internal"
    """A defect of ours."""


class JobRecord(Record):
    """``artifacts/job.json``: what made these files, and how good the result is; for readers far from any server."""

    schema_version: int = 1
    job_id: str
    job_name: str
    campaign_name: str | None = None
    spec: dict[str, Any]
    """The resolved spec; a mapping, so that those of other releases can be read."""
    result: str = ""
    """Kind of result: ``dense``, or ``masked`` (weights of full size with zeros); empty for a comparison, and in older
    records."""
    num_steps: int = 0
    """Optimizer steps of the whole job."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Final values, as in the outcome."""


class RankError(Record):
    """Why a rank stopped, written by the rank itself before it dies."""

    rank: int
    reason: StopReason
    message: str
    """One paragraph for the user: what, value, remedy."""
    retryable: bool = False
    time: float
    """Unix seconds; the earliest among the ranks is the cause."""


class Outcome(Record):
    """How an attempt ended; written once, atomically, as the last act of the driver."""

    schema_version: int = 1
    attempt_id: str
    token: str
    reason: StopReason
    message: str = ""
    failed_rank: int | None = None
    """The first rank that failed, where one did."""
    run_id: str | None = None
    """MLflow run, if MLflow could be reached."""
    published: bool = False
    """All metrics and artifacts are in MLflow; False: the rest waits in the job's spool."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Final values: eval/accuracy, eval/loss, sparsity/prunable, ..."""
    manifest_sha256: str | None = None
    """Digest of ``artifacts/manifest.json``."""
    bytes_on_disk: int | None = None
    """Size of ``artifacts/model`` in bytes."""
    started_at: float = 0.0
    finished_at: float = 0.0
