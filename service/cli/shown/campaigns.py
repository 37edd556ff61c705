"""What people see of campaigns: the list, and the page of one. Pure: takes views, returns renderables.

Jobs that say nothing of their own are folded into one row: those that never started, by state. Jobs that ran keep their
row, since it holds their metrics.
"""

import time
from collections.abc import Iterable, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from prunus.service.cli.shown.counts import count_states, counts_text
from prunus.service.cli.shown.words import duration, elapsed, empty_table, number, state_text, steps
from prunus.service.wire import CampaignSummary, CampaignView, JobState, JobView

KEY_METRICS = ("eval/cer", "eval/wer", "eval/per", "eval/accuracy", "eval/loss", "sparsity/prunable")
"""Curves that get a column where a job of the group has them."""

FOLD_OVER = 5
"""Jobs that never started share a row if more of them than this are in one state."""

_SILENT = (JobState.CANCELLED, JobState.SKIPPED, JobState.QUEUED, JobState.BLOCKED)
"""States of jobs that never started which many share for one cause."""


def campaigns_table(campaigns: Iterable[CampaignSummary], now: float | None = None) -> Table:
    """Table of ``prunus campaigns``."""
    table = _table("CAMPAIGN", "JOBS", "DONE", "STATES", "AT MOST", "AGE", "TOOK", "ID")
    now = now or time.time()
    for campaign in campaigns:
        table.add_row(
            Text(campaign.title),
            str(campaign.num_jobs),
            percent(campaign.progress),
            counts_text(campaign.counts),
            str(campaign.max_parallel or ""),
            Text(duration(now - campaign.created_at)),
            Text(duration(campaign.finished_at - campaign.created_at if campaign.finished_at else None)),
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
        "done": Text(percent(campaign.progress)),
        "at most": Text(f"{campaign.max_parallel} at a time" if campaign.max_parallel else ""),
        "age": Text(duration(now - campaign.created_at)),
        "took": Text(duration(end - campaign.created_at if end else None)),
    }
    for name, value in rows.items():
        if value.plain:
            facts.add_row(Text(name, style="bold"), value)
    if not campaign.jobs:
        return Group(facts, Text(""), Text("no job is in such a state"))
    return Group(facts, Text(""), group_table(campaign.jobs, fold=fold, now=now))


def group_table(jobs: Sequence[JobView], *, fold: bool, now: float) -> Table:
    """The jobs of a group with step, time and the key metrics that they have; an empty column is left out."""
    waiting = [job for job in jobs if job.started_at is None]
    numbers = count_states(waiting)
    folded = [state for state in _SILENT if fold and numbers.get(state, 0) > FOLD_OVER]
    rows = [
        (Text(job.name), state_text(job.state), _cells(job, now))
        for job in jobs
        if job.started_at is not None or job.state not in folded
    ]
    for state in folded:
        own = [job for job in waiting if job.state is state]
        reasons = {job.why for job in own}
        why = reasons.pop() if len(reasons) == 1 else f"each its own, --state {state.value} shows them"
        note = {"WHY": f"{why}  ({own[0].name} … {own[-1].name})"}
        rows.append((Text(f"{len(own)} jobs"), state_text(state), note))
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
        "STEP": steps(job),
        "ETA": duration(job.progress.eta_s if job.progress and not job.state.is_terminal else None),
        "RAN": duration(elapsed(job, now)),
        **{name: number(known.get(name)) for name in KEY_METRICS},
        "WHY": _why(job),
    }


def values(job: JobView) -> dict[str, float]:
    """The latest value of every curve of a job, the final ones where it has them."""
    return {**(job.progress.metrics if job.progress else {}), **job.metrics}


def _why(job: JobView) -> str:
    """One line: the reason where the state alone does not tell it; ``prunus why JOB`` prints it whole."""
    if job.state in {JobState.RUNNING, JobState.SUCCEEDED}:
        return ""
    return job.why.split("\n", 1)[0]


def _one_line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def percent(share: float) -> str:
    """Rounded down, so that 100% is the end."""
    return f"{int(100 * share + 1e-9)}%"


def _table(*headers: str) -> Table:
    table = empty_table()
    for header in headers:
        table.add_column(header, no_wrap=header not in {"STATES", "WHY"}, ratio=1 if header == "WHY" else None)
    return table
