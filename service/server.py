"""The server process: ``python -m prunus.service.server [--home DIR] [--port N] [--store URL] [--ray-address URL] ...``

settings -> store -> Ray Jobs client -> scheduler thread -> uvicorn. Everything not given on the command line comes from
``PRUNUS_*`` variables (``service.settings``). SIGTERM and SIGINT end the server; attempts on the cluster go on, and the
next start takes them up again.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from typing import Any

import uvicorn

from prunus.cluster.ray_jobs import RayJobs
from prunus.service.assembly import Assembly
from prunus.service.errors import ServiceError
from prunus.service.settings import Settings
from prunus.service.sources.mlflow_registry import MlflowRegistry
from prunus.service.sources.registry import NoRegistry, Registry

log = logging.getLogger("prunus.service.server")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until it is told to end.

    Returns:
        The process's exit code.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        settings = Settings.load(**_parse(arguments))
        serve(settings)
    except ServiceError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


def serve(settings: Settings) -> None:
    """Assemble the server around Ray and MLflow, and answer until SIGTERM or SIGINT.

    Raises:
        ServiceError: It cannot start.
    """
    executor = RayJobs(
        settings.ray_address, settings.ray_token, settings.python, settings.runtime_env, settings.ship_code
    )
    registry: Registry = NoRegistry()
    if settings.mlflow_uri is not None:
        registry = MlflowRegistry(settings.mlflow_uri, settings.mlflow_experiment)
    with Assembly(settings, executor, registry) as assembly:
        # uvicorn ends on these two by itself, then raises them again, which must not cut our own way out.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        log.info("answering on http://%s:%d, home %s", settings.host, settings.port, settings.home)
        uvicorn.run(
            assembly.app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            # Longer than clients keep a connection (httpx: 5 s), so that none sends into one that closes just then.
            timeout_keep_alive=30,
            # Followers of logs poll; a request that is still open after this is cut.
            timeout_graceful_shutdown=5,
        )


def _parse(arguments: Sequence[str] | None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m prunus.service.server", description=__doc__)
    for name in ("home", "host", "port", "store", "storage", "ray-address", "ray-token-file", "mlflow-uri"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--mlflow-experiment")
    parser.add_argument("--token-file")
    parser.add_argument("--python")
    for name in ("embedded", "ship-code"):
        parser.add_argument(f"--{name}", action="store_true", default=None)
    return vars(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
