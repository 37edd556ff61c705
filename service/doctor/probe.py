"""Look at this environment: ``python -m prunus.service.doctor.probe`` prints one JSON object per fact, as it goes.

Run as a process of its own, since imports of torch and others are slow, and some bring a process down. What was printed
before that still counts. Cheap facts come first.
"""

import contextlib
import importlib
import json
import os
import platform
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import create_engine, extract, func, select
from sqlalchemy.exc import SQLAlchemyError

from prunus.cluster.embedded_ray import LOOPBACK
from prunus.service.doctor.facts import Clock, Cpu, Disk, Gpu, Package, Python
from prunus.service.errors import ServiceError
from prunus.service.local import up
from prunus.service.local.state import masked
from prunus.service.settings import DEFAULT_PORT, Settings

IMPORTS = {
    "torch": "torch",
    "torchaudio": "torchaudio",
    "transformers": "transformers.models.bert.modeling_bert",
    "deepspeed": "deepspeed",
    "accelerate": "accelerate",
    "datasets": "datasets",
    "ray": "ray",
    "mlflow": "mlflow",
}
"""Package -> module that a job imports first."""
DASHBOARD_PORT = 8265
_HIDDEN = re.compile(r"TOKEN$|PASSWORD|SECRET|KEY$|RUNTIME_ENV$")
_ANSWER_S = 3.0


def main() -> None:
    """Print every fact."""
    for facts in _all_facts():
        sys.__stdout__.write(json.dumps(facts) + "\n")  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]


def shown_variables(environ: dict[str, str]) -> dict[str, str]:
    """Return our variables, with secrets as ``***`` and without the passwords of URLs."""
    ours = {name: value for name, value in environ.items() if name.startswith("PRUNUS_")}
    return {name: "***" if _HIDDEN.search(name) else masked(value) for name, value in sorted(ours.items())}


def probe_cpu(cpuinfo: str) -> Cpu:
    """Return cores and memory of this process, and number formats by the text of ``/proc/cpuinfo``."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    memory = psutil.virtual_memory()
    return Cpu(
        cores=len(os.sched_getaffinity(0)),
        memory_gb=memory.total / 1e9,
        free_memory_gb=memory.available / 1e9,
        bf16=bool(flags & {"avx512_bf16", "amx_bf16", "bf16"}),
        amx="amx_bf16" in flags,
    )


def probe_disk(path: Path) -> Disk:
    """Return the room at a path, or at the nearest folder above it that exists."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return Disk(path=str(path), free_gb=shutil.disk_usage(there).free / 1e9)


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def http_clock(name: str, url: str) -> Clock:
    """Compare with the ``Date`` header of any answer; it holds whole seconds, so half of one is added."""
    ahead = None
    with contextlib.suppress(httpx.HTTPError, httpx.InvalidURL, KeyError, ValueError):
        before = time.time()
        answer = httpx.get(url, timeout=_ANSWER_S, trust_env=False)
        middle = (before + time.time()) / 2
        ahead = parsedate_to_datetime(answer.headers["date"]).timestamp() + 0.5 - middle
    return Clock(name=name, address=masked(url), ahead_s=ahead)


def database_clock(url: str) -> Clock:
    """Compare with the clock of a PostgreSQL server."""
    ahead = None
    with contextlib.suppress(SQLAlchemyError, ImportError):  # an address, a password, a driver that is missing
        engine = create_engine(url, connect_args={"connect_timeout": int(_ANSWER_S)})
        with engine.connect() as connection:
            now = connection.execute(select(extract("epoch", func.clock_timestamp()))).scalar_one()
        ahead = float(now) - time.time()
    return Clock(name="database", address=masked(url), ahead_s=ahead)


def probe_clocks(settings: Settings) -> list[Clock]:
    """Ask every server that is configured or runs here."""
    clocks = []
    server = settings.url or up.running_url(settings.home)
    if server:
        clocks.append(http_clock("server", f"{server.rstrip('/')}/v1/info"))
    if settings.mlflow_uri and settings.mlflow_uri.startswith("http"):
        clocks.append(http_clock("MLflow", f"{settings.mlflow_uri.rstrip('/')}/health"))
    if settings.store.startswith("postgresql"):
        clocks.append(database_clock(settings.store))
    return clocks


def probe_package(name: str, module: str) -> Package:
    """Import a package and return its release, or what the import raised."""
    installed = installed_version(name)
    if installed is None:
        return Package(version=None)
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever a library raises when it is imported is what was asked for
        return Package(version=installed, error=f"{type(error).__name__}: {last_line(error)}")
    return Package(version=installed)


def last_line(error: BaseException) -> str:
    """Return the last line of the first cause of an error."""
    while error.__cause__ is not None and not isinstance(error, OSError):
        error = error.__cause__
    return (str(error).strip().splitlines() or [""])[-1][:300]


def probe_gpu() -> Gpu:
    """Ask torch, if it can be imported."""
    device_files = len(list(Path("/dev").glob("nvidia[0-9]*")))
    torch = sys.modules.get("torch")
    if torch is None:
        return Gpu(cuda=None, devices=(), nccl=None, device_files=device_files)
    devices = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        devices.append(f"{properties.name} ({properties.total_memory / 1e9:.0f} GB)")
    nccl = None
    if devices and torch.distributed.is_nccl_available():
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
    return Gpu(cuda=torch.version.cuda, devices=tuple(devices), nccl=nccl, device_files=device_files)


def installed_version(name: str) -> str | None:
    """Return the release of a package; None: not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def required_packages() -> list[str]:
    """Name what prunus asks for, without what only its developers need."""
    names = set()
    for line in metadata.requires("prunus") or []:
        if not re.search(r"extra == ['\"](dev|test|demo|postgres)['\"]", line):
            names.add(re.split(r"[^A-Za-z0-9._-]", line)[0])
    return sorted(names, key=str.lower)


def _all_facts() -> Iterator[dict[str, Any]]:
    yield {"python": Python(version=platform.python_version(), executable=sys.executable).model_dump()}
    yield {"variables": shown_variables(dict(os.environ))}
    try:
        settings = Settings.load()
    except ServiceError as error:
        yield {"settings_error": str(error)}
        settings = Settings.load({})
    yield {"cpu": probe_cpu(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")).model_dump()}
    yield {"compiler": shutil.which("g++") or shutil.which("c++")}
    server_port = settings.port or DEFAULT_PORT
    mlflow_port = int(os.environ.get("PRUNUS_MLFLOW_PORT") or DEFAULT_PORT + 1)
    yield {"ports": {port: is_free(port) for port in (server_port, mlflow_port, DASHBOARD_PORT)}}
    yield {"home": probe_disk(settings.home).model_dump()}
    yield {"shared_memory": probe_disk(Path("/dev/shm")).model_dump()}  # noqa: S108 - where Ray keeps objects
    yield {"clocks": [clock.model_dump() for clock in probe_clocks(settings)]}
    yield {"versions": {name: installed_version(name) for name in required_packages()}}
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    for name, module in IMPORTS.items():
        yield {"packages": {name: probe_package(name, module).model_dump()}}
    yield {"gpu": probe_gpu().model_dump()}


if __name__ == "__main__":
    main()
