"""Tell people what jobs do until they end: quietly, or with live progress."""

from collections.abc import Sequence

from rich.console import Console
from rich.live import Live

from prunus.service.cli.shown.counts import count_states, counts_line
from prunus.service.cli.shown.live import follow_line, follow_page, follow_table
from prunus.service.cli.waiting.patience import POLL_S, Tell, now
from prunus.service.cli.waiting.watch import watch
from prunus.service.client import Client
from prunus.service.wire import JobState, JobView

_QUIET_S = 15.0
"""Plain output: seconds between two lines of one job whose state did not change."""

_LARGE = 10
"""Plain output: a group of more jobs than this is told by its counts, and by what runs in it."""


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
                tell(follow_line(job))
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
                live.update(follow_page(jobs, console.height), refresh=True)
            live.update(follow_table(jobs))  # What stays on the screen is the whole table.
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
            at = now()
            before = last.get(job.id)
            moved = before is None or before[0] != change or (before[1] != step and at - before[2] >= _QUIET_S)
            if moved and _has_own_line(job, len(jobs)):
                write(follow_line(job))
                last[job.id] = (change, step, at)
    return jobs


def _tell_counts(jobs: Sequence[JobView], before: object, tell: Tell) -> object:
    """Of a large group: one line at first, and one whenever more of it has ended; gives what to remember."""
    counts = {state: number for state, number in count_states(jobs).items() if state.is_terminal}
    if len(jobs) > _LARGE and counts != before:
        tell(counts_line(jobs))
    return counts


def _has_own_line(job: JobView, num_jobs: int) -> bool:
    """In a large group only what runs or has run: the counts tell the others."""
    if num_jobs <= _LARGE or job.state in {JobState.RUNNING, JobState.FAILED}:
        return True
    return job.state.is_terminal and job.started_at is not None
