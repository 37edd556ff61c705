"""The three parts of the embedded default: what each is started with, and how it shows that it answers.

Ray: ``cluster.embedded_ray``. MLflow: SQLite, one worker, artifacts served from the home. Server: ``service.server``,
told everything by PRUNUS_* variables. Starts and ends nothing by itself: that is ``service.local.up``.
"""

import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx
from pydantic import Field

from prunus.cluster.embedded_ray import (
    LOOPBACK,
    EmbeddedRay,
    RayPorts,
    check_installed,
    ensure_token,
    is_ready,
    prepare_temp_dir,
)
from prunus.cluster.errors import ClusterError
from prunus.configs import __version__
from prunus.configs.values.base import Record
from prunus.service.errors import Refused, StartFailed
from prunus.service.local.processes import ProcessId, start_detached

MARKER = "PRUNUS_CLUSTER"
PART = "PRUNUS_PART"

PartName = Literal["ray", "mlflow", "server"]


class UpOptions(Record):
    """What the caller brings instead of the embedded parts."""

    ray_address: str | None = None
    """Dashboard of an existing Ray cluster; None: start a local one."""
    mlflow_uri: str | None = None
    """Existing MLflow server; None: start one on SQLite."""
    store: str | None = None
    """SQLAlchemy URL of our database; None: SQLite in the home."""
    num_cpus: int | None = Field(default=None, ge=1)
    """CPUs that the local Ray hands out; None: PRUNUS_CPUS, else all cores."""
    host: str | None = None
    """Address that the server listens on; None: PRUNUS_HOST, else loopback."""


class Part(Record):
    """One process that was started."""

    process: ProcessId
    url: str
    log: str


class UpState(Record):
    """Content of ``up.json``."""

    schema_version: int = 1
    version: str = __version__
    marker: str
    options: UpOptions
    ray_url: str
    mlflow_url: str
    server_url: str
    """As this machine reaches it."""
    host: str = LOOPBACK
    """Address that the server listens on."""
    num_cpus: int | None = None
    """CPUs of the local Ray; None with an external one."""
    ray_ports: tuple[int, int, int, int] | None = None
    """Dashboard, GCS, client, agent."""
    ray_temp_dir: str | None = None
    parts: dict[str, Part] = Field(default_factory=dict)


def wanted(options: UpOptions) -> list[PartName]:
    """Name the parts that have to be started under these options."""
    parts: list[PartName] = ["server"]
    if options.ray_address is None:
        parts.append("ray")
    if options.mlflow_uri is None:
        parts.append("mlflow")
    return parts


def check_reach(options: UpOptions, host: str, *, has_token: bool) -> None:
    """Refuse a server that anybody could use, and ranks elsewhere that would look for MLflow on their own machine.

    Args:
        host: Address that the server will listen on.
        has_token: The server will ask for a token.

    Raises:
        Refused: With what to give.
    """
    if not is_loopback(host) and not has_token:
        raise Refused(
            f"PRUNUS_HOST is {host}: others could run code through a server that asks for no token; set PRUNUS_TOKEN "
            "or PRUNUS_TOKEN_FILE (openssl rand -hex 32 > api-token), or leave PRUNUS_HOST unset"
        )
    if options.ray_address is None or is_loopback(urlsplit(options.ray_address).hostname or ""):
        return
    mlflow = options.mlflow_uri
    if mlflow is None or is_loopback(urlsplit(mlflow).hostname or ""):
        what = f"--mlflow-uri is {masked(mlflow)}" if mlflow else f"MLflow would be started here, on {LOOPBACK}"
        raise Refused(
            f"--ray-address {masked(options.ray_address)} is another machine, and {what}, which its ranks would look "
            "for on their own; give --mlflow-uri (PRUNUS_MLFLOW_URI) of a server that they reach"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that name or address."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def local_url(host: str, port: int) -> str:
    """Where this machine reaches a server that listens on ``host``."""
    reached = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104 - compared with, not listened on
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def differences(before: UpOptions, now: UpOptions) -> str:
    """Name the options that differ, both values, no passwords."""
    pairs = [(name, getattr(before, name), getattr(now, name)) for name in UpOptions.model_fields]
    return ", ".join(f"{name} is {masked(old)}, now {masked(new)}" for name, old, new in pairs if old != new)


def masked(value: object) -> str:
    """A value without the password of a URL; None as a word."""
    text = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", "not given" if value is None else str(value))
    return re.sub(r"(?i)(password=)[^&\s]*", r"\1***", text)


def check_packages(missing: list[PartName]) -> None:
    """Refuse before anything starts where a package is missing.

    Raises:
        StartFailed: Ray or the MLflow server is not installed.
    """
    try:
        if "ray" in missing:
            check_installed()
        if "mlflow" in missing:
            version("mlflow")
    except ClusterError as error:
        raise StartFailed(str(error)) from error
    except PackageNotFoundError as error:
        raise StartFailed(
            "the MLflow server is not installed here; install 'prunus[train]', give --mlflow-uri of one that runs, "
            "or set PRUNUS_URL"
        ) from error


def launch(home: Path, state: UpState, name: PartName) -> Part:
    """Start one part, detached, with its log in ``home/logs``."""
    environ = _base_environment(state, name)
    url = {"ray": state.ray_url, "mlflow": state.mlflow_url, "server": state.server_url}[name]
    log = home / "logs" / f"{name}.log"
    if name == "ray":
        ray = _ray(home, state)
        ensure_token(ray.token_file)
        command = ray.command(prepare_temp_dir(home, Path(state.ray_temp_dir or home)))
        environ |= ray.environment()
    elif name == "mlflow":
        command, extra = _mlflow(home, url)
        environ |= extra
    else:
        command, extra = _server(home, state)
        environ |= extra
    return Part(process=start_detached(command, environ, home, log), url=url, log=str(log))


def _base_environment(state: UpState, name: PartName) -> dict[str, str]:
    """The caller's environment with our marker, our interpreter first on PATH, and no relative module path."""
    here = [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    environ = {
        **os.environ,
        MARKER: state.marker,
        PART: f"{name}:{state.marker}",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
    }
    if here:
        environ["PYTHONPATH"] = os.pathsep.join(here)
    return environ


def _ray(home: Path, state: UpState) -> EmbeddedRay:
    assert state.ray_ports is not None and state.num_cpus is not None
    dashboard, gcs, client, agent = state.ray_ports
    ports = RayPorts(dashboard=dashboard, gcs=gcs, client=client, agent=agent)
    return EmbeddedRay(home, ports, num_cpus=state.num_cpus)


def _mlflow(home: Path, url: str) -> tuple[list[str], dict[str, str]]:
    """One worker and no job execution: a quarter of the memory and of the start time of the default."""
    artifacts = home / "mlflow-artifacts"
    artifacts.mkdir(exist_ok=True)
    command = [
        *(sys.executable, "-m", "mlflow", "server"),
        f"--backend-store-uri=sqlite:///{home / 'mlflow.db'}",
        "--serve-artifacts",
        f"--artifacts-destination={artifacts}",
        f"--host={LOOPBACK}",
        f"--port={url.rsplit(':', 1)[1]}",
        "--workers=1",
    ]
    return command, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def _server(home: Path, state: UpState) -> tuple[list[str], dict[str, str]]:
    extra = {
        "PRUNUS_HOME": str(home),
        "PRUNUS_HOST": state.host,
        "PRUNUS_PORT": state.server_url.rsplit(":", 1)[1],
        "PRUNUS_RAY_ADDRESS": state.ray_url,
        "PRUNUS_MLFLOW_URI": state.mlflow_url,
        "PRUNUS_EMBEDDED": "true" if state.options.ray_address is None else "false",
    }
    if state.options.ray_address is None:
        extra["PRUNUS_RAY_TOKEN_FILE"] = str(home / "ray-token")
    if state.options.store:
        extra["PRUNUS_STORE"] = state.options.store
    if path := os.environ.get("PRUNUS_TOKEN_FILE"):  # The server runs in the home, not in this directory.
        extra["PRUNUS_TOKEN_FILE"] = str(Path(path).expanduser().resolve())
    return [sys.executable, "-m", "prunus.service.server"], extra


def answers(home: Path, name: PartName, url: str, timeout_s: float = 2.0) -> bool:
    """Tell whether a part answers over HTTP within ``timeout_s`` seconds."""
    if name == "ray":
        return is_ready(url, (home / "ray-token").read_text(encoding="utf-8"), timeout_s)
    path = {"mlflow": "/health", "server": "/v1/info"}[name]
    try:
        answer = httpx.get(url + path, timeout=timeout_s, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.status_code in {200, 401}


def tail(log: Path, lines: int = 25) -> str:
    """Return the last lines of a log, for a message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"({error.strerror})"
    return "\n".join(text.splitlines()[-lines:])
