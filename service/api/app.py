"""The HTTP API. Thin routes: each reads its input, asks one object, and answers with a type of ``service.wire``.

    GET  /v1/info                              POST /v1/campaigns  (Idempotency-Key)
    GET  /v1/jobs?campaign=&state=&limit=      GET  /v1/campaigns?limit=
    GET  /v1/jobs/{ref}                        GET  /v1/campaigns/{ref}
    POST /v1/jobs/{ref}/cancel                 POST /v1/campaigns/{ref}/cancel
    GET  /v1/jobs/{ref}/log?rank=&attempt=&offset=     GET  /v1/artifacts?source=
    GET  /healthz  /readyz  /openapi.json              GET  /v1/artifacts/file?source=&path=   (Range)

In a path CAMPAIGN/NAME is written CAMPAIGN:NAME. Errors are ``Problem`` bodies. Routes are plain functions: they run in
worker threads, since the database and the files they read block.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from prunus.cluster.errors import ClusterError
from prunus.cluster.executor import Executor
from prunus.configs import ConfigError, StopReason, __version__
from prunus.configs.specs.union import KINDS
from prunus.service.api.auth import Guard, problem
from prunus.service.api.views import Views
from prunus.service.attempts.logs import JobLogs
from prunus.service.client.client import ENDED, NEXT_OFFSET
from prunus.service.errors import ServiceError
from prunus.service.settings import Settings
from prunus.service.sources.registry import Registry
from prunus.service.sources.resolve import Sources
from prunus.service.store.store import Store
from prunus.service.submission.submit import Submitter
from prunus.service.wire import (
    ArtifactView,
    CampaignCancelled,
    CampaignSummary,
    CampaignView,
    JobDetail,
    JobState,
    JobView,
    Problem,
    ServerInfo,
    Submission,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What the routes ask. Put together in ``service.server``, or by a test."""

    settings: Settings
    store: Store
    executor: Executor
    sources: Sources
    registry: Registry
    wake: Callable[[], None] = lambda: None
    """Makes the scheduler look at once."""
    ready: Callable[[], bool] = lambda: True
    """The scheduler runs."""


def create_app(parts: Parts) -> FastAPI:
    """Build the application."""
    app = FastAPI(
        title="prunus",
        version=__version__,
        docs_url=None,  # The page loads scripts from elsewhere; /openapi.json is enough.
        redoc_url=None,
        responses={422: {"model": Problem}, 404: {"model": Problem}},
    )
    app.add_middleware(Guard, token=parts.settings.bearer_token)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=parts.settings.trusted_hosts, www_redirect=False)
    _add_errors(app)
    _add_server_routes(app, parts)
    _add_job_routes(app, parts)
    _add_artifact_routes(app, parts)
    return app


def _add_server_routes(app: FastAPI, parts: Parts) -> None:
    settings = parts.settings

    @app.get("/v1/info")
    def info() -> ServerInfo:
        return ServerInfo(
            version=__version__,
            embedded=settings.embedded,
            mlflow_url=settings.mlflow_uri,
            ray_url=settings.ray_address,
            storage=str(settings.storage),
        )

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz() -> Response:
        if not parts.ready():
            return problem(503, "the scheduler does not run; see the server's log", "NotReady", retryable=True)
        parts.store.jobs(limit=1)
        return Response('{"status":"ok"}', media_type="application/json")


def _add_job_routes(app: FastAPI, parts: Parts) -> None:
    store = parts.store
    views = Views(store, parts.registry.run_url)
    logs = JobLogs(store, parts.executor, parts.settings)
    submitter = Submitter(store, parts.executor, embedded=parts.settings.embedded)

    @app.post("/v1/campaigns")
    def submit(
        submission: Submission, idempotency_key: Annotated[str | None, Header(max_length=200)] = None
    ) -> CampaignView:
        campaign_id = submitter.submit(submission.campaign, idempotency_key)
        parts.wake()
        return views.campaign(store.find_campaign(campaign_id))

    @app.get("/v1/campaigns")
    def campaigns(limit: Annotated[int, Query(ge=1, le=10_000)] = 100) -> list[CampaignSummary]:
        return views.campaigns(limit)

    @app.get("/v1/campaigns/{ref}")
    def campaign(ref: str) -> CampaignView:
        return views.campaign(store.find_campaign(ref))

    @app.post("/v1/campaigns/{ref}/cancel")
    def cancel_campaign(ref: str) -> CampaignCancelled:
        row = store.find_campaign(ref)
        cancelled = store.cancel_campaign(row.id, "cancelled by a user, with its campaign")
        parts.wake()
        return CampaignCancelled(cancelled=tuple(cancelled), campaign=views.campaign(row))

    @app.get("/v1/jobs")
    def jobs(
        campaign: str | None = None,
        state: Annotated[list[JobState], Query()] = [],  # noqa: B006 - FastAPI copies it
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    ) -> list[JobView]:
        return views.jobs(campaign, state, limit)

    @app.get("/v1/jobs/{ref}")
    def job(ref: str) -> JobDetail:
        return views.job(ref)

    @app.post("/v1/jobs/{ref}/cancel")
    def cancel(ref: str) -> JobView:
        row = store.request_stop(store.find_job(ref).id, StopReason.CANCELLED, "cancelled by a user")
        parts.wake()
        return views.of(row)

    @app.get("/v1/jobs/{ref}/log", response_class=Response)
    def job_log(
        ref: str,
        rank: Annotated[int | None, Query(ge=-1, lt=100_000)] = None,
        attempt: Annotated[int | None, Query(ge=1)] = None,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        data, next_offset, ended = logs.read(store.find_job(ref), rank, attempt, offset)
        headers = {NEXT_OFFSET: str(next_offset), ENDED: "true" if ended else "false"}
        return Response(data, media_type="text/plain; charset=utf-8", headers=headers)


def _add_artifact_routes(app: FastAPI, parts: Parts) -> None:
    @app.get("/v1/artifacts")
    def artifacts(source: str) -> ArtifactView:
        return parts.sources.listing(source)

    @app.get("/v1/artifacts/file", response_class=FileResponse)
    def artifact_file(source: str, path: str) -> FileResponse:
        place, sha256 = parts.sources.file(source, path)
        # The digest as ETag: a client that resumes with If-Range never mixes two versions.
        return FileResponse(place, media_type="application/octet-stream", headers={"etag": f'"{sha256}"'})


def _add_errors(app: FastAPI) -> None:
    def answer(status: int, error: Exception, retryable: bool) -> Response:
        return problem(status, str(error), type(error).__name__, retryable=retryable)

    @app.exception_handler(ServiceError)
    def service_error(_: Request, error: ServiceError) -> Response:
        return answer(error.status, error, error.retryable)

    @app.exception_handler(ConfigError)
    def config_error(_: Request, error: ConfigError) -> Response:
        return answer(422, error, retryable=False)

    @app.exception_handler(ClusterError)
    def cluster_error(_: Request, error: ClusterError) -> Response:
        return answer(503, error, error.retryable)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> Response:
        return problem(422, "\n".join(_describe(item) for item in error.errors()[:20]), "Refused")

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        return problem(error.status_code, f"{request.method} {request.url.path}: {error.detail}", "Refused")

    @app.exception_handler(SQLAlchemyError)
    @app.exception_handler(Exception)
    def fault(request: Request, error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem(500, "the server failed; its log tells why", "ServerFault", retryable=True)


def _describe(item: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in item["loc"] if part not in ("body", *KINDS))
    what = str(item["msg"]).removeprefix("Value error, ")
    return f"{where}: {what}, got {str(item.get('input'))[:80]!r}" if where else what
