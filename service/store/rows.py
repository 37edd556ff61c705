"""Rows of the store as frozen values. Pure: no connection here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from prunus.configs import AnySpec, Progress, StopReason
from prunus.service.wire import JobState

_SPEC: TypeAdapter[AnySpec] = TypeAdapter(AnySpec)


@dataclass(frozen=True)
class NewJob:
    """A job to queue."""

    id: str
    spec: AnySpec
    parents: tuple[str, ...]
    """Ids of the jobs it waits for or reads from."""
    references: Mapping[str, str]
    """What ``job:NAME`` means in it: name -> id."""
    state: JobState
    """BLOCKED or QUEUED."""
    why: str


@dataclass(frozen=True)
class JobRow:
    """One job."""

    seq: int
    """Place in the queue: smaller is older."""
    id: str
    campaign_id: str
    name: str
    state: JobState
    why: str
    spec: AnySpec
    parents: tuple[str, ...]
    references: Mapping[str, str]
    created_at: float
    started_at: float | None
    finished_at: float | None
    run_id: str | None
    published: bool
    metrics: Mapping[str, float]
    bytes_on_disk: int | None
    manifest_sha256: str | None


@dataclass(frozen=True)
class AttemptRow:
    """One launch of a job."""

    token: int
    """Fencing token."""
    id: str
    job_id: str
    number: int
    """1 for the first."""
    state: JobState
    reason: StopReason | None
    message: str
    placement: tuple[str, ...]
    """Node of each rank, as planned when it was admitted."""
    created_at: float
    submitted_at: float | None
    """When Ray confirmed the submission; None: Ray may or may not have heard of it."""
    started_at: float | None
    finished_at: float | None
    stop_reason: StopReason | None
    """Why we asked for its end, if we did."""
    stop_sent_at: float | None
    ray_status: str | None
    """Last terminal or missing status that Ray gave."""
    ray_reads: int
    """How often in a row Ray gave it."""
    progress: Progress | None


@dataclass(frozen=True)
class CampaignRow:
    """Jobs that were submitted together."""

    id: str
    name: str | None
    created_at: float
    max_parallel: int | None = None
    """How many of its jobs may hold resources at one time; None: as many as fit."""

    @property
    def title(self) -> str:
        """What people call it."""
        return self.name or self.id


@dataclass(frozen=True)
class CampaignCounts:
    """The jobs of one campaign, summed up."""

    by_state: Mapping[JobState, int]
    finished_at: float | None
    """When the last of its jobs ended; None while one has not."""


@dataclass(frozen=True)
class EventRow:
    """One decision."""

    seq: int
    time: float
    job_id: str
    attempt_id: str | None
    kind: str
    message: str


@lru_cache(maxsize=10_000)
def _read_spec(text: str) -> AnySpec:
    """A spec never changes, and reading it is most of reading a row; the scheduler reads every open job each second."""
    return _SPEC.validate_json(text, extra="ignore")


def job_row(row: Mapping[Any, Any]) -> JobRow:
    """Read one row of the table of jobs. Keys of its spec that this release does not know are dropped.

    Raises:
        ValueError: Another release wrote what cannot be read here, or the row is damaged.
    """
    return JobRow(
        seq=row["seq"],
        id=row["id"],
        campaign_id=row["campaign_id"],
        name=row["name"],
        state=JobState(row["state"]),
        why=row["why"],
        spec=_read_spec(row["spec"]),
        parents=tuple(json.loads(row["parents"])),
        references=json.loads(row["job_references"]),
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        run_id=row["run_id"],
        published=row["published"],
        metrics=json.loads(row["metrics"]),
        bytes_on_disk=row["bytes_on_disk"],
        manifest_sha256=row["manifest_sha256"],
    )


def campaign_row(row: Mapping[Any, Any]) -> CampaignRow:
    """Read one row of the table of campaigns."""
    return CampaignRow(row["id"], row["name"], row["created_at"], row["max_parallel"])


def attempt_row(row: Mapping[Any, Any]) -> AttemptRow:
    """Read one row of the table of attempts."""
    return AttemptRow(
        token=row["token"],
        id=row["id"],
        job_id=row["job_id"],
        number=row["number"],
        state=JobState(row["state"]),
        reason=None if row["reason"] is None else StopReason(row["reason"]),
        message=row["message"],
        placement=tuple(json.loads(row["placement"])),
        created_at=row["created_at"],
        submitted_at=row["submitted_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        stop_reason=None if row["stop_reason"] is None else StopReason(row["stop_reason"]),
        stop_sent_at=row["stop_sent_at"],
        ray_status=row["ray_status"],
        ray_reads=row["ray_reads"],
        progress=None if row["progress"] is None else Progress.model_validate_json(row["progress"]),
    )
