"""What travels over HTTP, both ways. Every answer of the API is one of these."""

from enum import StrEnum

from pydantic import Field

from prunus.configs import AnySpec, Campaign, Progress, StopReason
from prunus.configs.values.base import Fraction, Record, Strict

NEXT_OFFSET = "prunus-next-offset"
"""Header of a log answer: where the next reading begins, in bytes."""
ENDED = "prunus-log-ended"
"""Header of a log answer: "true" if nothing will follow ``next_offset``."""
DRIVER = -1
"""In place of a rank, for a log: the driver's output, which ends with the cause of a failure."""


class JobState(StrEnum):
    """Where a job is. Drawn, with the legal transitions, in ``service.states``."""

    BLOCKED = "BLOCKED"
    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"
    """A job before it did not succeed."""

    @property
    def is_terminal(self) -> bool:
        """No transition leaves this state."""
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED}


class Submission(Strict):
    """``POST /v1/campaigns``: jobs to queue together. The header Idempotency-Key makes a repeat harmless."""

    campaign: Campaign


class AttemptView(Record):
    """One launch of a job."""

    attempt_id: str
    number: int
    state: JobState
    reason: StopReason | None = None
    message: str = ""
    started_at: float | None = None
    """Unix seconds."""
    finished_at: float | None = None


class JobView(Record):
    """One job, as people and scripts see it."""

    id: str
    name: str
    campaign_id: str
    campaign_name: str | None = None
    state: JobState
    why: str = ""
    """One sentence: why it waits, runs or ended."""
    method: str = ""
    """Empty for a comparison."""
    task: str = ""
    """``comparison`` for a job that trains nothing."""
    parents: tuple[str, ...] = ()
    """Ids of the jobs it waits for or reads from."""
    num_ranks: int = 1
    created_at: float
    """Unix seconds."""
    started_at: float | None = None
    finished_at: float | None = None
    attempts: tuple[AttemptView, ...] = ()
    progress: Progress | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    """Final values, once it has succeeded."""
    run_id: str | None = None
    """MLflow run."""
    run_url: str | None = None
    """Where a browser shows the run."""
    published: bool = False
    bytes_on_disk: int | None = None


class JobDetail(JobView):
    """One job with its resolved spec."""

    spec: AnySpec


class CampaignSummary(Record):
    """Jobs that were submitted together, counted."""

    id: str
    name: str | None = None
    created_at: float
    """Unix seconds."""
    finished_at: float | None = None
    """When the last job ended; null while one has not."""
    max_parallel: int | None = None
    """How many of its jobs may hold resources at one time; null: as many as fit."""
    num_jobs: int = 0
    counts: dict[JobState, int] = Field(default_factory=dict)
    """Number of jobs in each state that occurs."""
    progress: Fraction = 0.0
    """Mean over the jobs: 1 for one that has ended, the share of its steps for one that runs."""

    @property
    def title(self) -> str:
        """What people call it."""
        return self.name or self.id


class CampaignView(CampaignSummary):
    """A campaign with its jobs, parents first."""

    jobs: tuple[JobView, ...]


class CampaignCancelled(Record):
    """Answer to ``POST /v1/campaigns/{ref}/cancel``."""

    cancelled: tuple[str, ...]
    """Ids of the jobs that this call ended, or asked to stop; empty for a repeat."""
    campaign: CampaignView
    """As it is now: a job that was asked to stop is CANCELLING until its processes are gone."""


class FileView(Record):
    """One file of an artifact."""

    path: str
    """POSIX path in the fetched directory (``model/`` is its root)."""
    size: int
    sha256: str


class ArtifactView(Record):
    """``GET /v1/artifacts?source=...``: what a fetch will bring."""

    source: str
    job_id: str
    job_name: str
    manifest_sha256: str
    files: tuple[FileView, ...]


class ServerInfo(Record):
    """``GET /v1/info``."""

    version: str
    embedded: bool
    """Server, Ray and files are on one machine: local paths of a recipe can be checked at submit."""
    mlflow_url: str | None = None
    ray_url: str | None = None
    storage: str = ""


class Problem(Record):
    """Body of every error answer."""

    error: str
    """What, the value, the remedy."""
    kind: str = ""
    """Class of the error."""
    retryable: bool = False
