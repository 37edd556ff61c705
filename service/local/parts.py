"""The three parts of the embedded default: what each is started with, and how it shows that it answers.

Ray: ``cluster.embedded_ray``. MLflow: SQLite, one worker, artifacts served from the home. Server: ``service.server``,
told everything by PRUNUS_* variables. Starts and ends nothing by itself: that is ``service.local.up``.
"""

import os
import sys
from pathlib import Path

import httpx

from prunus.cluster.embedded_ray import LOOPBACK, EmbeddedRay, RayPorts, ensure_token, is_ready, prepare_temp_dir
from prunus.service.local.processes import start_detached
from prunus.service.local.state import MARKER, PART, Part, PartName, UpState


def local_url(host: str, port: int) -> str:
    """Where this machine reaches a server that listens on ``host``."""
    reached = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104 - compared with, not listened on
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


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
