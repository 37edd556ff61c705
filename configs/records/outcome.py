"""What crosses the border between service and training: ``Launch`` goes in, ``Progress`` and ``Outcome`` come out, and
``JobRecord`` stays with what the job made.
"""

from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from prunus.configs.specs.comparison import AnySpec
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


class ResolvedSource(Record):
    """A reference after the server looked it up."""

    reference: str
    """As the user wrote it."""
    kind: Literal["artifact", "directory", "hub", "run"]
    """``artifact``: a directory with our manifest; ``directory``: any Hugging Face directory; ``hub``: a hub id;
    ``run``: artifacts of an MLflow run, to be downloaded."""
    location: str
    """A path, a hub id, or an MLflow run id."""
    manifest_sha256: str | None = None
    """Digest of the manifest that the parent job left; the job refuses to start from another."""


class Launch(Record):
    """All that an attempt needs to know; the only input of the process on the cluster."""

    schema_version: int = 1
    prunus_version: str
    """The server's version; the cluster must have the same."""
    job_id: str
    job_name: str
    campaign_id: str | None = None
    campaign_name: str | None = None
    attempt: int
    """1 for the first."""
    attempt_id: str
    """``<job id>-a<attempt>``: id of the Ray Jobs submission."""
    token: str
    """Fencing token: a newer attempt has a larger one (decimal number)."""
    job_dir: str
    """Root of the job's directory on shared storage."""
    cache_dir: str
    """Where tokenised data is cached, on shared storage."""
    spec: AnySpec
    sources: dict[str, ResolvedSource] = Field(default_factory=dict)
    """By role: model, teacher, mask; in a comparison, by what is compared."""
    mlflow_uri: str | None = None
    """None: metrics go to the spool only."""
    mlflow_experiment: str = "prunus"


class JobRecord(Record):
    """``artifacts/job.json``: what made these files, and how good the result is; for readers far from any server."""

    schema_version: int = 1
    job_id: str
    job_name: str
    campaign_name: str | None = None
    spec: dict[str, Any]
    """The resolved spec; a mapping, so that those of other releases can be read."""
    num_steps: int = 0
    """Optimizer steps of the whole job."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Final values, as in the outcome."""


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


class RankError(Record):
    """Why a rank stopped, written by the rank itself before it dies."""

    rank: int
    reason: StopReason
    message: str
    """One paragraph for the user: what, value, remedy."""
    retryable: bool = False
    time: float
    """Unix seconds; the earliest among the ranks is the cause."""


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
