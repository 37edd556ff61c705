"""``/v1/jobs``: list, show, cancel, logs."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from prunus.configs import StopReason
from prunus.service.api.parts import Asked
from prunus.service.wire import ENDED, NEXT_OFFSET, JobDetail, JobState, JobView

router = APIRouter(prefix="/v1/jobs")


@router.get("")
def jobs(
    parts: Asked,
    campaign: str | None = None,
    state: Annotated[list[JobState], Query()] = [],  # noqa: B006 - FastAPI copies it
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
) -> list[JobView]:
    """List jobs, newest first."""
    return parts.views.jobs(campaign, state, limit)


@router.get("/{ref}")
def job(parts: Asked, ref: str) -> JobDetail:
    """Show one job with its spec."""
    return parts.views.job(ref)


@router.post("/{ref}/cancel")
def cancel(parts: Asked, ref: str) -> JobView:
    """Ask for the end of a job."""
    row = parts.store.request_stop(parts.store.find_job(ref).id, StopReason.CANCELLED, "cancelled by a user")
    parts.wake()
    return parts.views.of(row)


@router.get("/{ref}/log", response_class=Response)
def job_log(
    parts: Asked,
    ref: str,
    rank: Annotated[int | None, Query(ge=-1, lt=100_000)] = None,
    attempt: Annotated[int | None, Query(ge=1)] = None,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    """Read a piece of a log."""
    data, next_offset, ended = parts.logs.read(parts.store.find_job(ref), rank, attempt, offset)
    headers = {NEXT_OFFSET: str(next_offset), ENDED: "true" if ended else "false"}
    return Response(data, media_type="text/plain; charset=utf-8", headers=headers)
