"""What a request must pass before a route sees it: size, origin, bearer token. The Host header is Starlette's to check.

A page in a browser on the same machine can reach a loopback port: it is refused by its Origin when it tries to change
something, and by the Host header when it comes through a name of its own (DNS rebinding).
"""

import hmac
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prunus.service.wire import Problem

MAX_BODY_BYTES = 16 * 1024 * 1024
_OPEN_PATHS = {"/healthz", "/readyz"}
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


class Guard:
    """ASGI middleware.

    Args:
        app: What is guarded.
        token: Bearer token that every ``/v1`` request must carry; None: none.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token.encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refuse(scope, Headers(scope=scope))
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self._app(scope, _bounded(receive), send)

    def _refuse(self, scope: Scope, headers: Headers) -> Response | None:
        origin = headers.get("origin")
        if scope["method"] not in _SAFE_METHODS and origin and urlsplit(origin).netloc != headers.get("host"):
            return problem(403, f"requests from pages of {origin} are refused; use the command line or the client")
        if self._token is not None and scope["path"] not in _OPEN_PATHS and not self._has_token(headers):
            return problem(401, "the bearer token is missing or wrong; set PRUNUS_TOKEN to the server's token")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return problem(413, f"the body has {length} bytes, at most {MAX_BODY_BYTES:,} are read; split the campaign")
        return None

    def _has_token(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        assert self._token is not None
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)


def problem(status: int, error: str, kind: str = "Refused", *, retryable: bool = False) -> Response:
    """An error answer."""
    body = Problem(error=error, kind=kind, retryable=retryable).model_dump_json()
    return Response(body, status_code=status, media_type="application/json")


def _bounded(receive: Receive) -> Receive:
    read = 0

    async def bounded() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > MAX_BODY_BYTES:
            # FastAPI hands this class on while it reads a body; any other would become a 400.
            raise HTTPException(413, f"the body is over {MAX_BODY_BYTES:,} bytes; split the campaign")
        return message

    return bounded
