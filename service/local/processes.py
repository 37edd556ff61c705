"""Child processes that outlive the command that starts them: detached start, identity, ending, sweep by marker.

A process is known by its id **and** its start time (ids are reused), or by a variable in its environment that its
children inherit. Never by its name.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from prunus.configs.values.base import Record

_SAME_START_S = 2.0
"""Start times are computed from the boot time, which a clock correction may shift a little."""
_started: list[subprocess.Popen[bytes]] = []
"""Keeps the handles of our own children, so that Python does not warn that they still run."""


class ProcessId(Record):
    """Which process, across reuse of process ids."""

    pid: int
    started: float
    """Unix seconds."""


def start_detached(command: Sequence[str], environ: Mapping[str, str], directory: Path, log: Path) -> ProcessId:
    """Start a process in a session of its own; both its streams go to ``log`` (the earlier log is kept as ``.1``)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_suffix(log.suffix + ".1"))
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603 - the commands are ours
            command,
            env=dict(environ),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _started.append(child)
    return ProcessId(pid=child.pid, started=_start_time(child.pid))


def is_alive(process: ProcessId) -> bool:
    """Tell whether this very process still runs; a zombie does not."""
    return _find(process) is not None


def marked(variable: str, value: str) -> list[psutil.Process]:
    """Find every live process with ``variable=value`` in its environment, but this one and its ancestors."""
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in mine and process.environ().get(variable) == value and _runs(process):
                found.append(process)
    return found


def end(processes: Iterable[ProcessId], variable: str, value: str, grace_s: float) -> list[int]:
    """End processes and everything that carries the marker: TERM, ``grace_s`` seconds at most, then KILL.

    Returns:
        Process ids that still run (those of another user, or stuck in the kernel); [] when all are gone.
    """
    roots = [found for process in processes if (found := _find(process))]
    family = {child.pid: child for root in roots for child in _descendants(root)}
    _signal(roots, kill=False)
    _wait(roots, grace_s)
    for kill, wait_s in ((False, 3.0), (True, 3.0), (True, 3.0)):
        left = {p.pid: p for p in (*roots, *family.values(), *marked(variable, value)) if _runs(p)}
        if not left:
            return []
        _signal(left.values(), kill=kill)
        _wait(left.values(), wait_s)
    return sorted(process.pid for process in (*roots, *marked(variable, value)) if _runs(process))


def _start_time(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return time.time()


def _find(process: ProcessId) -> psutil.Process | None:
    with contextlib.suppress(psutil.Error):
        found = psutil.Process(process.pid)
        if abs(found.create_time() - process.started) < _SAME_START_S and _runs(found):
            return found
    return None


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.Error:
        return False


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _signal(processes: Iterable[psutil.Process], *, kill: bool) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill() if kill else process.terminate()


def _wait(processes: Iterable[psutil.Process], timeout_s: float) -> None:
    """Wait until none runs.

    Polls, because they are not our children. Not ``psutil.wait_procs``: it waits for a zombie whose parent never
    collects it, as in a container without an init process, until the time is over.
    """
    deadline = time.monotonic() + timeout_s
    remaining = list(processes)
    while remaining and time.monotonic() < deadline:
        remaining = [process for process in remaining if _runs(process)]
        if remaining:
            time.sleep(0.05)
