"""Every error as a ``Problem`` body."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from prunus.cluster.errors import ClusterError
from prunus.configs import ConfigError
from prunus.configs.specs.union import KINDS
from prunus.service.api.auth import problem
from prunus.service.errors import ServiceError

log = logging.getLogger(__name__)


def add_error_answers(app: FastAPI) -> None:
    """Answer errors of ours with their status, and any other with 500."""

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
