"""What people see while jobs run: on a terminal a table that fits it, else a line per change. Pure."""

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from prunus.service.cli.shown.counts import count_states, counts_text
from prunus.service.cli.shown.words import duration, elapsed, loss, new_table, number, sparsity, state_text, steps
from prunus.service.wire import JobState, JobView

_URGENT = (JobState.RUNNING, JobState.STARTING, JobState.CANCELLING, JobState.FAILED, JobState.QUEUED)
"""Which rows a live view keeps when not all fit, the first of these first."""


def follow_page(jobs: Sequence[JobView], height: int) -> RenderableType:
    """Live view: one line a job; where they do not fit ``height`` lines, counts and those where something happens."""
    room = max(1, height - 4)
    if len(jobs) <= room + 2:
        return follow_table(jobs)
    ranks = {state: place for place, state in enumerate(_URGENT)}
    chosen = sorted(jobs, key=lambda job: ranks.get(job.state, len(ranks)))[:room]
    kept = {job.id for job in chosen}
    rest = [job for job in jobs if job.id not in kept]
    more = Text(f"and {len(rest)} more: ").append_text(counts_text(count_states(rest)))
    head = Text(f"{len(jobs)} jobs: ").append_text(counts_text(count_states(jobs)))
    return Group(head, follow_table(chosen), more)


def follow_table(jobs: Iterable[JobView], now: float | None = None) -> Table:
    """Live view: one line a job, whatever the width; ``prunus why`` tells a reason that is cut here."""
    table = new_table("NAME", "STATE", "PROGRESS", "STEP", "LOSS", "SPARSITY", "ETA", "RAN", "WHY")
    for job in jobs:
        progress = job.progress
        bar: RenderableType = Text("")
        if job.state is JobState.SUCCEEDED:
            bar = ProgressBar(total=1, completed=1, width=16)
        elif progress and progress.num_steps:
            bar = ProgressBar(total=progress.num_steps, completed=progress.step, width=16)
        eta = progress.eta_s if progress and not job.state.is_terminal else None
        table.add_row(
            Text(job.name),
            state_text(job.state),
            bar,
            Text(steps(job)),
            Text(number(loss(job))),
            Text(number(sparsity(job))),
            Text(duration(eta)),
            Text(duration(elapsed(job, now))),
            Text(_why_now(job), no_wrap=True, overflow="ellipsis"),
        )
    return table


def follow_line(job: JobView, now: float | None = None) -> str:
    """The same as one plain line, for logs and pipes."""
    parts = [f"{job.name}: {job.state.value}", steps(job)]
    values = (
        ("loss", number(loss(job))),
        ("sparsity", number(sparsity(job))),
        ("eta", duration(job.progress.eta_s if job.progress and not job.state.is_terminal else None)),
        ("ran", duration(elapsed(job, now))),
    )
    parts += [f"{name} {value}" for name, value in values if value]
    line = "  ".join(part for part in parts if part)
    why = _why_now(job)
    return f"{line}  ({why})" if why else line


def _why_now(job: JobView) -> str:
    """The reason of a state; of a job that makes progress, the progress says it."""
    return "" if job.state is JobState.RUNNING and job.progress else job.why
