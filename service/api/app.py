"""The HTTP API. ``api.parts`` says what the routes ask, ``api.error_answers`` what they answer to an error.

GET  /v1/info                              POST /v1/campaigns  (Idempotency-Key)
GET  /v1/jobs?campaign=&state=&limit=      GET  /v1/campaigns?limit=
GET  /v1/jobs/{ref}                        GET  /v1/campaigns/{ref}
POST /v1/jobs/{ref}/cancel                 POST /v1/campaigns/{ref}/cancel
GET  /v1/jobs/{ref}/log?rank=&attempt=&offset=     GET  /v1/artifacts?source=
GET  /healthz  /readyz  /openapi.json              GET  /v1/artifacts/file?source=&path=   (Range)
"""

from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from prunus.configs import __version__
from prunus.service.api.auth import Guard
from prunus.service.api.error_answers import add_error_answers
from prunus.service.api.parts import Parts
from prunus.service.api.routes import artifacts, campaigns, jobs, server
from prunus.service.wire import Problem


def create_app(parts: Parts) -> FastAPI:
    """Build the application."""
    app = FastAPI(
        title="prunus",
        version=__version__,
        docs_url=None,  # The page loads scripts from elsewhere; /openapi.json is enough.
        redoc_url=None,
        responses={422: {"model": Problem}, 404: {"model": Problem}},
    )
    app.state.parts = parts
    app.add_middleware(Guard, token=parts.settings.bearer_token)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=parts.settings.trusted_hosts, www_redirect=False)
    add_error_answers(app)
    for routes in (server, campaigns, jobs, artifacts):
        app.include_router(routes.router)
    return app
