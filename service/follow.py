"""Waiting for jobs: one poll loop behind ``wait``, ``submit --wait``, ``--follow`` and ``logs -f``.

The server may restart meanwhile: silence is told and endured for a while, nothing is concluded from it. Ending the
loop (Ctrl-C) never ends a job.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.live import Live

from service import render
from service.client import Client
from service.errors import NotFound, Unreachable
from service.wire import JobState, JobView

POLL_S = 1.0
"""Seconds between two looks."""
PATIENCE_S = 120.0
"""Seconds of silence of the server that are endured."""
_QUIET_S = 15.0
"""Plain output: seconds between two lines of one job whose state did not change."""

DRIVER = -1
"""In place of a rank: the driver's output, which ends with the cause of a failure."""
_TAIL_BYTES = 16_384

Answer = TypeVar("Answer")
Tell = Callable[[str], None]


def resolve(client: Client, ref: str) -> list[JobView]:
    """Return the job of that reference, or all jobs of the campaign of that reference.

    Raises:
        NotFound: Neither exists.
    """
    try:
        return [client.job(ref)]
    except NotFound:
        try:
            return list(client.campaign(ref).jobs)
        except NotFound as error:
            raise NotFound(f"there is no job and no campaign {ref!r}; `prunus list` shows what there is") from error


def watch(
    client: Client, job_ids: Sequence[str], tell: Tell, *, poll_s: float = POLL_S, timeout_s: float | None = None
) -> Iterator[list[JobView]]:
    """Yield the jobs again and again until all have ended; the last value is the final one.

    Args:
        tell: Called with one line when the server is silent, and when it is back.
        poll_s: Seconds between two looks.
        timeout_s: Stop looking after so many seconds; None: never.

    Raises:
        Unreachable: The server was silent for longer than ``PATIENCE_S``.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    known: dict[str, JobView] = {}
    while True:
        for job_id in job_ids:
            if job_id not in known or not known[job_id].state.is_terminal:
                known[job_id] = _patiently(lambda job_id=job_id: client.job(job_id), tell, poll_s)  # type: ignore[misc]
        jobs = [known[job_id] for job_id in job_ids]
        yield jobs
        if all(job.state.is_terminal for job in jobs) or (deadline is not None and time.monotonic() >= deadline):
            return
        time.sleep(poll_s)


def wait_quietly(
    client: Client, job_ids: Sequence[str], tell: Tell, *, poll_s: float = POLL_S, timeout_s: float | None = None
) -> list[JobView]:
    """Wait, telling every change of a state as one line.

    Returns:
        The jobs as last seen; not all have ended if the time was over first.
    """
    states: dict[str, JobState] = {}
    jobs: list[JobView] = []
    for jobs in watch(client, job_ids, tell, poll_s=poll_s, timeout_s=timeout_s):
        for job in jobs:
            if states.get(job.id) is not job.state:
                tell(render.follow_line(job))
                states[job.id] = job.state
    return jobs


def follow(
    client: Client,
    job_ids: Sequence[str],
    console: Console,
    tell: Tell,
    *,
    poll_s: float = POLL_S,
    timeout_s: float | None = None,
) -> list[JobView]:
    """Show progress until all jobs have ended: a live table on a terminal, else a line per change at a bounded rate."""
    jobs: list[JobView] = []
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=False) as live:
            for jobs in watch(client, job_ids, tell, poll_s=poll_s, timeout_s=timeout_s):
                live.update(render.follow_table(jobs), refresh=True)
        return jobs
    last: dict[str, tuple[tuple[object, ...], int, float]] = {}
    for jobs in watch(client, job_ids, tell, poll_s=poll_s, timeout_s=timeout_s):
        for job in jobs:
            step = job.progress.step if job.progress else 0
            change = (job.state, job.why, job.progress.phase if job.progress else None)
            now = time.monotonic()
            before = last.get(job.id)
            if before is None or before[0] != change or (before[1] != step and now - before[2] >= _QUIET_S):
                console.print(render.follow_line(job), markup=False, highlight=False, soft_wrap=True)
                last[job.id] = (change, step, now)
    return jobs


def stream_log(
    client: Client,
    ref: str,
    write: Callable[[bytes], object],
    tell: Tell,
    *,
    rank: int | None = None,
    attempt: int | None = None,
    keep_on: bool = False,
    poll_s: float = POLL_S,
) -> None:
    """Copy a log piece by piece, in constant memory.

    Args:
        write: Takes the bytes in order.
        rank: Whose log; None for rank 0's (the driver's, if no rank ever wrote), ``DRIVER`` for the driver's.
        keep_on: Wait for more until the attempt has ended.
    """
    offset = 0
    while True:
        start = offset
        chunk = _patiently(lambda start=start: client.log(ref, rank, attempt, start), tell, poll_s)  # type: ignore[misc]
        write(chunk.data)
        moved, offset = chunk.next_offset > offset, chunk.next_offset
        if chunk.ended or (not moved and not keep_on):
            return
        if not moved:
            time.sleep(poll_s)


def end_of_log(client: Client, ref: str, lines: int) -> str:
    """Return the last lines of the driver's log, reading it in constant memory."""
    kept = b""

    def keep(data: bytes) -> None:
        nonlocal kept
        kept = (kept + data)[-_TAIL_BYTES:]

    try:
        stream_log(client, ref, keep, lambda _: None, rank=DRIVER)
    except NotFound:
        return ""
    return "\n".join(kept.decode(errors="replace").splitlines()[-lines:])


def _patiently(ask: Callable[[], Answer], tell: Tell, poll_s: float) -> Answer:
    silent_since: float | None = None
    while True:
        try:
            answer = ask()
        except Unreachable as error:
            now = time.monotonic()
            if silent_since is None:
                silent_since = now
                tell(f"{error}; jobs go on meanwhile, looking again for {PATIENCE_S:.0f} s")
            if now - silent_since > PATIENCE_S:
                raise
            time.sleep(poll_s)
            continue
        if silent_since is not None:
            tell("the server answers again")
        return answer
