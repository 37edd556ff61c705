"""What people see of campaigns: counts, the table of a group's jobs, and the live view of more jobs than fit a screen.

Pure, as ``service.cli.tables`` is: takes views, returns renderables or text. Jobs that say nothing of their own are
folded into one row: those that never started, by state. Jobs that ran keep their row, since it holds their metrics.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from prunus.service.cli import tables as render
from prunus.service.wire import CampaignSummary, CampaignView, JobState, JobView

KEY_METRICS = ("eval/cer", "eval/wer", "eval/per", "eval/accuracy", "eval/loss", "sparsity/prunable")
"""Curves that get a column where a job of the group has them."""
FOLD_OVER = 5
"""Jobs that never started share a row if more of them than this are in one state."""
_ORDER = (
    JobState.SUCCEEDED,
    JobState.FAILED,
    JobState.CANCELLED,
    JobState.SKIPPED,
    JobState.CANCELLING,
    JobState.RUNNING,
    JobState.STARTING,
    JobState.QUEUED,
    JobState.BLOCKED,
)
_SILENT = (JobState.CANCELLED, JobState.SKIPPED, JobState.QUEUED, JobState.BLOCKED)
"""States of jobs that never started which many share for one cause."""
_URGENT = (JobState.RUNNING, JobState.STARTING, JobState.CANCELLING, JobState.FAILED, JobState.QUEUED)
"""Which rows a live view keeps when not all fit, the first of these first."""


def count_states(jobs: Iterable[JobView]) -> dict[JobState, int]:
    """Number of jobs in each state that occurs."""
    return dict(Counter(job.state for job in jobs))


def counts_text(counts: Mapping[JobState, int]) -> Text:
    """``12 SUCCEEDED, 4 RUNNING, 34 QUEUED``: what has ended first."""
    parts: list[Text] = []
    for state in _ORDER:
        if counts.get(state):
            parts.append(Text(f"{counts[state]} ").append_text(render.state_text(state)))
    return Text(", ").join(parts)


def counts_line(jobs: Sequence[JobView]) -> str:
    """``50 jobs: 12 SUCCEEDED, 38 QUEUED``."""
    return f"{len(jobs)} jobs: {counts_text(count_states(jobs)).plain}"


def campaigns_table(campaigns: Iterable[CampaignSummary], now: float | None = None) -> Table:
    """Table of ``prunus campaigns``."""
    table = _table("CAMPAIGN", "JOBS", "DONE", "STATES", "AT MOST", "AGE", "TOOK", "ID")
    now = now or time.time()
    for campaign in campaigns:
        table.add_row(
            Text(campaign.title),
            str(campaign.num_jobs),
            _percent(campaign.progress),
            counts_text(campaign.counts),
            str(campaign.max_parallel or ""),
            Text(render.duration(now - campaign.created_at)),
            Text(render.duration(campaign.finished_at - campaign.created_at if campaign.finished_at else None)),
            Text(campaign.id, style="dim"),
        )
    return table


def campaign_page(campaign: CampaignView, *, fold: bool = True, now: float | None = None) -> Group:
    """Page of ``prunus show CAMPAIGN``; its head counts all jobs, also where the view holds only some.

    Args:
        fold: Jobs that never started share a row.
    """
    now = now or time.time()
    end = campaign.finished_at
    facts = Table.grid(padding=(0, 2))
    rows: dict[str, Text] = {
        "campaign": Text(f"{campaign.title}  ({campaign.id})"),
        "jobs": Text(f"{campaign.num_jobs}: ").append_text(counts_text(campaign.counts)),
        "done": Text(_percent(campaign.progress)),
        "at most": Text(f"{campaign.max_parallel} at a time" if campaign.max_parallel else ""),
        "age": Text(render.duration(now - campaign.created_at)),
        "took": Text(render.duration(end - campaign.created_at if end else None)),
    }
    for name, value in rows.items():
        if value.plain:
            facts.add_row(Text(name, style="bold"), value)
    if not campaign.jobs:
        return Group(facts, Text(""), Text("no job is in such a state"))
    return Group(facts, Text(""), jobs_table(campaign.jobs, fold=fold, now=now))


def jobs_table(jobs: Sequence[JobView], *, fold: bool, now: float) -> Table:
    """The jobs of a group with step, time and the key metrics that they have; an empty column is left out."""
    waiting = [job for job in jobs if job.started_at is None]
    numbers = count_states(waiting)
    folded = [state for state in _SILENT if fold and numbers.get(state, 0) > FOLD_OVER]
    rows = [
        (Text(job.name), render.state_text(job.state), _cells(job, now))
        for job in jobs
        if job.started_at is not None or job.state not in folded
    ]
    for state in folded:
        own = [job for job in waiting if job.state is state]
        reasons = {job.why for job in own}
        why = reasons.pop() if len(reasons) == 1 else f"each its own, --state {state.value} shows them"
        note = {"WHY": f"{why}  ({own[0].name} … {own[-1].name})"}
        rows.append((Text(f"{len(own)} jobs"), render.state_text(state), note))
    columns = [
        name for name in ("STEP", "ETA", "RAN", *KEY_METRICS, "WHY") if any(cells.get(name) for *_, cells in rows)
    ]
    # A long name of a metric stands on two lines, so that a narrow screen holds more of them.
    table = _table("JOB", "STATE", *(name.replace("/", "/\n") for name in columns))
    for name, state_cell, cells in rows:
        table.add_row(name, state_cell, *(_one_line(cells.get(column, "")) for column in columns))
    return table


def _cells(job: JobView, now: float) -> dict[str, str]:
    known = values(job)
    return {
        "STEP": render.steps(job),
        "ETA": render.duration(job.progress.eta_s if job.progress and not job.state.is_terminal else None),
        "RAN": render.duration(render.elapsed(job, now)),
        **{name: render.number(known.get(name)) for name in KEY_METRICS},
        "WHY": _why(job),
    }


def values(job: JobView) -> dict[str, float]:
    """The latest value of every curve of a job, the final ones where it has them."""
    return {**(job.progress.metrics if job.progress else {}), **job.metrics}


def follow_page(jobs: Sequence[JobView], height: int) -> RenderableType:
    """Live view: one line a job; where they do not fit ``height`` lines, counts and those where something happens."""
    room = max(1, height - 4)
    if len(jobs) <= room + 2:
        return render.follow_table(jobs)
    ranks = {state: place for place, state in enumerate(_URGENT)}
    chosen = sorted(jobs, key=lambda job: ranks.get(job.state, len(ranks)))[:room]
    kept = {job.id for job in chosen}
    rest = [job for job in jobs if job.id not in kept]
    more = Text(f"and {len(rest)} more: ").append_text(counts_text(count_states(rest)))
    head = Text(f"{len(jobs)} jobs: ").append_text(counts_text(count_states(jobs)))
    return Group(head, render.follow_table(chosen), more)


def _why(job: JobView) -> str:
    """One line: the reason where the state alone does not tell it; ``prunus why JOB`` prints it whole."""
    if job.state in {JobState.RUNNING, JobState.SUCCEEDED}:
        return ""
    return job.why.split("\n", 1)[0]


def _one_line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _percent(share: float) -> str:
    """Rounded down, so that 100% is the end."""
    return f"{int(100 * share + 1e-9)}%"


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(header, no_wrap=header not in {"STATES", "WHY"}, ratio=1 if header == "WHY" else None)
    return table
