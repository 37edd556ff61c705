"""``/v1/info``, ``/healthz``, ``/readyz``."""

from fastapi import APIRouter
from fastapi.responses import Response

from prunus.configs import __version__
from prunus.service.api.auth import problem
from prunus.service.api.parts import Asked
from prunus.service.wire import ServerInfo

router = APIRouter()


@router.get("/v1/info")
def info(parts: Asked) -> ServerInfo:
    """Say what server this is."""
    settings = parts.settings
    return ServerInfo(
        version=__version__,
        embedded=settings.embedded,
        mlflow_url=settings.mlflow_uri,
        ray_url=settings.ray_address,
        storage=str(settings.storage),
    )


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(parts: Asked) -> Response:
    """The scheduler runs, and the database answers."""
    if not parts.ready():
        return problem(503, "the scheduler does not run; see the server's log", "NotReady", retryable=True)
    parts.store.jobs(limit=1)
    return Response('{"status":"ok"}', media_type="application/json")
