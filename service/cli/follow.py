"""Waiting for jobs: one poll loop behind ``wait``, ``submit --wait``, ``--follow`` and ``logs -f``.

The server may restart meanwhile: silence is told and endured for a while, nothing is concluded from it. Ending the
loop (Ctrl-C) never ends a job.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console
from rich.live import Live

from prunus.service.cli import campaign_tables as group_view
from prunus.service.cli import tables as render
from prunus.service.client import Client
from prunus.service.errors import NotFound, Refused, Unreachable
from prunus.service.wire import CampaignView, JobDetail, JobState, JobView

POLL_S = 1.0
"""Seconds between two looks."""
PATIENCE_S = 120.0
"""Seconds of silence of the server that are endured."""
_QUIET_S = 15.0
"""Plain output: seconds between two lines of one job whose state did not change."""
_LARGE = 10
"""Plain output: a group of more jobs than this is told by its counts, and by what runs in it."""
_TOGETHER = 4
"""So many jobs of one campaign are asked for in one question."""

DRIVER = -1
"""In place of a rank: the driver's output, which ends with the cause of a failure."""
_TAIL_BYTES = 16_384
_MOST = 10_000
"""So many jobs the server lists at once."""

Answer = TypeVar("Answer")
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """What a reference means: one job, or a whole campaign."""

    id: str
    """Of the job or the campaign."""
    jobs: tuple[JobView, ...]
    campaign: CampaignView | None = None
    """None: one job was meant."""


def resolve(client: Client, ref: str, *, campaign: bool = False) -> Target:
    """Find the job or the campaign of that reference.

    Args:
        campaign: The reference is a campaign's.

    Raises:
        NotFound: Neither exists.
        Refused: Both exist, so that one command could mean two things.
    """
    job, group = (None, client.campaign(ref)) if campaign else look_up(client, ref)
    if job is not None and group is not None:
        raise Refused(
            f"{ref!r} is a job ({job.id}) and a campaign of {group.num_jobs} jobs ({group.id}); write {group.id}, or "
            f"--campaign {ref}, for the campaign, and {job.id} for the job"
        )
    if group is not None:
        return Target(group.id, group.jobs, group)
    assert job is not None
    return Target(job.id, (job,))


def resolve_active(client: Client, ref: str, *, campaign: bool = False) -> Target:
    """As :func:`resolve`, for what is not to befall the wrong job: a bare name means the one job of that name that has
    not ended.

    Raises:
        Refused: Several jobs of that name have not ended; and as in :func:`resolve`.
    """
    target = resolve(client, ref, campaign=campaign)
    if target.campaign is not None or target.jobs[0].name != ref:
        return target
    going = [
        job
        for job in client.jobs(state=[state for state in JobState if not state.is_terminal], limit=_MOST)
        if job.name == ref
    ]
    if len(going) > 1:
        known = ", ".join(f"{job.campaign_name or job.campaign_id}/{ref} ({job.id})" for job in going)
        raise Refused(f"{len(going)} jobs named {ref!r} have not ended: {known}; name one of them")
    return Target(going[0].id, (going[0],)) if going else target


def look_up(client: Client, ref: str) -> tuple[JobDetail | None, CampaignView | None]:
    """The job and the campaign of that reference; only the job where it is all of the campaign.

    Raises:
        NotFound: Neither exists.
    """
    job = _unless_missing(lambda: client.job(ref))
    group = _unless_missing(lambda: client.campaign(ref))
    if job is None and group is None:
        raise NotFound(
            f"there is no job and no campaign {ref!r}; `prunus list` and `prunus campaigns` show what there is"
        )
    if job is not None and group is not None and [own.id for own in group.jobs] == [job.id]:
        return job, None
    return job, group


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
        _look(client, [i for i in job_ids if i not in known or not known[i].state.is_terminal], known, tell, poll_s)
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
    counted: object = None
    jobs: list[JobView] = []
    for jobs in watch(client, job_ids, tell, poll_s=poll_s, timeout_s=timeout_s):
        counted = _tell_counts(jobs, counted, tell)
        for job in jobs:
            if states.get(job.id) is not job.state and _has_own_line(job, len(jobs)):
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
                live.update(group_view.follow_page(jobs, console.height), refresh=True)
            live.update(render.follow_table(jobs))  # What stays on the screen is the whole table.
        return jobs

    def write(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    last: dict[str, tuple[tuple[object, ...], int, float]] = {}
    counted: object = None
    for jobs in watch(client, job_ids, tell, poll_s=poll_s, timeout_s=timeout_s):
        counted = _tell_counts(jobs, counted, write)
        for job in jobs:
            step = job.progress.step if job.progress else 0
            change = (job.state, job.why, job.progress.phase if job.progress else None)
            now = time.monotonic()
            before = last.get(job.id)
            moved = before is None or before[0] != change or (before[1] != step and now - before[2] >= _QUIET_S)
            if moved and _has_own_line(job, len(jobs)):
                write(render.follow_line(job))
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


def _look(client: Client, job_ids: Sequence[str], known: dict[str, JobView], tell: Tell, poll_s: float) -> None:
    """Ask for the jobs, those of one campaign together where they are many: a group of 200 is one question a second."""
    pending = dict.fromkeys(job_ids)
    while pending:
        job_id = next(iter(pending))
        job = known[job_id] = _patiently(lambda job_id=job_id: client.job(job_id), tell, poll_s)  # type: ignore[misc]
        del pending[job_id]
        same = [i for i in pending if i not in known or known[i].campaign_id == job.campaign_id]
        if len(same) < _TOGETHER:
            continue
        group = _patiently(lambda job=job: client.jobs(job.campaign_id, limit=_MOST), tell, poll_s)  # type: ignore[misc]
        for view in group:
            if view.id in pending:
                known[view.id] = view
                del pending[view.id]


def _tell_counts(jobs: Sequence[JobView], before: object, tell: Tell) -> object:
    """Of a large group: one line at first, and one whenever more of it has ended; gives what to remember."""
    counts = {state: number for state, number in group_view.count_states(jobs).items() if state.is_terminal}
    if len(jobs) > _LARGE and counts != before:
        tell(group_view.counts_line(jobs))
    return counts


def _has_own_line(job: JobView, num_jobs: int) -> bool:
    """In a large group only what runs or has run: the counts tell the others."""
    if num_jobs <= _LARGE or job.state in {JobState.RUNNING, JobState.FAILED}:
        return True
    return job.state.is_terminal and job.started_at is not None


def _unless_missing(ask: Callable[[], Answer]) -> Answer | None:
    try:
        return ask()
    except NotFound:
        return None


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
