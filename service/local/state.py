"""What was started, and with which options: ``up.json`` in the home, and the lock and the marker beside it."""

import contextlib
import fcntl
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from prunus.cluster.embedded_ray import LOOPBACK
from prunus.configs import __version__
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.values.base import Record
from prunus.service.local.processes import ProcessId

MARKER = "PRUNUS_CLUSTER"
"""Variable that every process of a home has in its environment."""
PART = "PRUNUS_PART"
"""Variable that says of which part it is."""

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


def differences(before: UpOptions, now: UpOptions) -> str:
    """Name the options that differ, both values, no passwords."""
    pairs = [(name, getattr(before, name), getattr(now, name)) for name in UpOptions.model_fields]
    return ", ".join(f"{name} is {masked(old)}, now {masked(new)}" for name, old, new in pairs if old != new)


def masked(value: object) -> str:
    """A value without the password of a URL; None as a word."""
    text = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", "not given" if value is None else str(value))
    return re.sub(r"(?i)(password=)[^&\s]*", r"\1***", text)


def read_state(home: Path) -> UpState | None:
    """Return what ``up`` left, or None if nothing was started (or the file cannot be read)."""
    try:
        return UpState.model_validate_json((home / "up.json").read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def write_state(home: Path, state: UpState) -> None:
    """Replace ``up.json``, readable by its owner only."""
    write_atomic(home / "up.json", state.model_dump_json(indent=2) + "\n")
    (home / "up.json").chmod(0o600)


def read_marker(home: Path) -> str:
    """Id of this home; outlives up.json, so that what was started can always be found."""
    path = home / "cluster-id"
    if not path.exists():
        write_atomic(path, uuid.uuid4().hex)
    return path.read_text(encoding="utf-8").strip()


@contextlib.contextmanager
def locked(home: Path) -> Iterator[None]:
    """One ``up`` or ``down`` at a time for a home."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (home / "up.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
