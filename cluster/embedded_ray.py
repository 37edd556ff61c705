"""How the one-machine Ray of ``prunus up`` is started: its command, environment, directories and readiness.

Nothing here imports Ray: the head is the child process ``ray start --head --block``, started and ended by
``service.local.up``. It listens on loopback, its own token guards it, and every process that it starts inherits the
marker in the environment by which ``prunus down`` finds what is left.
"""

import os
import secrets
import shutil
import stat
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx

from prunus.cluster.errors import EmbeddedRayFailed

LOOPBACK = "127.0.0.1"
STOP_GRACE_S = 30
"""Seconds between TERM and KILL when a job is stopped: enough to save a checkpoint (Ray's own default is 3)."""

OBJECT_STORE_BYTES = 256 * 1024**2
"""Shared memory of the object store; batches and weights do not pass through it."""

_LONGEST_TEMP_DIR = 40
"""Ray adds about 65 characters for its sockets, and a Unix socket's path has room for 107."""


@dataclass(frozen=True)
class RayPorts:
    """Ports of one head; all on loopback."""

    dashboard: int
    """HTTP: the Jobs API."""
    gcs: int
    client: int
    agent: int


@dataclass(frozen=True)
class EmbeddedRay:
    """One local Ray head.

    Args:
        home: Directory of the embedded default; must exist.
        ports: Free ports, chosen by the caller.
        num_cpus: CPUs that Ray may hand out, at least 1.
    """

    home: Path
    ports: RayPorts
    num_cpus: int

    @property
    def token_file(self) -> Path:
        return self.home / "ray-token"

    def command(self, temp_dir: Path) -> list[str]:
        """Return the command that runs the head in the foreground."""
        return [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--head",
            "--block",
            "--disable-usage-stats",
            "--log-color=false",
            f"--port={self.ports.gcs}",
            f"--ray-client-server-port={self.ports.client}",
            f"--dashboard-host={LOOPBACK}",
            f"--dashboard-port={self.ports.dashboard}",
            f"--dashboard-agent-listen-port={self.ports.agent}",
            f"--num-cpus={self.num_cpus}",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            f"--temp-dir={temp_dir}",
        ]

    def environment(self) -> dict[str, str]:
        """Return what the head's environment needs beside the caller's; workers inherit it."""
        has_gpu = any(Path("/dev").glob("nvidia[0-9]*"))
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "RAY_USAGE_STATS_ENABLED": "0",
            "SPT_NOENV": "1",
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_GRACE_S),
            # On TERM the head would wait 30 s for Ray Train's detached actors, which stay.
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            # Ray's log monitor would list all logs of the session ten times a second, its event agent as often.
            "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
            "LOG_NAME_UPDATE_INTERVAL_S": "2",
            "EVENT_AGENT_REPORT_INTERVAL_SECONDS": "1",
            "REPORTER_UPDATE_INTERVAL_MS": "15000",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            **({} if has_gpu else {"DS_ACCELERATOR": os.environ.get("DS_ACCELERATOR", "cpu")}),
        }


def check_installed() -> None:
    """Refuse early where Ray is missing.

    Raises:
        EmbeddedRayFailed: Ray is not installed in this environment.
    """
    try:
        version("ray")
    except PackageNotFoundError as error:
        raise EmbeddedRayFailed(
            "Ray is not installed here, so no local cluster can start; install 'prunus[train]', give --ray-address of "
            "a cluster, or set PRUNUS_URL to a server that runs"
        ) from error


def ensure_token(path: Path) -> None:
    """Create the token that guards the local Ray, readable by its owner only; keep one that is there."""
    if path.exists():
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        return
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(32))


def prepare_temp_dir(home: Path, previous: Path | None = None) -> Path:
    """Give Ray a directory for sockets and logs: ``home/ray``, or a private one where that path is too long.

    Sessions of earlier starts but the newest are deleted.
    """
    directory = home / "ray"
    if len(str(directory)) > _LONGEST_TEMP_DIR:
        reusable = previous is not None and previous.is_dir() and previous.owner() == home.owner()
        directory = previous if reusable and previous else Path(tempfile.mkdtemp(prefix="prunus-"))
    directory.mkdir(mode=0o700, exist_ok=True)
    sessions = sorted(path for path in directory.glob("session_2*") if not path.is_symlink())
    for session in sessions[:-1]:
        shutil.rmtree(session, ignore_errors=True)
    return directory


def is_ready(url: str, token: str | None = None, timeout_s: float = 2.0) -> bool:
    """Tell whether the dashboard at ``url`` answers, and a node is there to run something."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=timeout_s, trust_env=False) as dashboard:
            dashboard.get("/api/version").raise_for_status()
            answer = dashboard.get("/api/v0/nodes", params={"limit": 100}).raise_for_status()
        nodes = answer.json()["data"]["result"]["result"]
        return any(node["state"] == "ALIVE" for node in nodes)
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return False
