"""What people see of jobs: the list, and the page of one. Pure: takes views, returns renderables."""

import time
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from prunus.configs import JobSpec
from prunus.service.cli.shown.words import duration, elapsed, gang_text, new_table, number, size, state_text, steps
from prunus.service.wire import JobDetail, JobState, JobView

_NOTHING_TO_TELL = "attempt 1 ended: succeeded"
"""The reason of most jobs that succeeded: their state says it."""

_UNPUBLISHED = "MLflow does not have everything yet; the job's spool keeps it until MLflow answers"


def jobs_table(jobs: Iterable[JobView], now: float | None = None) -> Table:
    """Table of ``prunus list``."""
    table = new_table("NAME", "CAMPAIGN", "STATE", "STEP", "AGE", "RAN", "WHY", "ID")
    now = now or time.time()
    for job in jobs:
        table.add_row(
            Text(job.name),
            Text(job.campaign_name or ""),
            state_text(job.state),
            Text(steps(job)),
            Text(duration(now - job.created_at)),
            Text(duration(elapsed(job, now))),
            Text("" if job.why == _NOTHING_TO_TELL else job.why),
            Text(job.id, style="dim"),
        )
    return table


def job_page(job: JobDetail, now: float | None = None) -> Group:
    """Page of ``prunus show``."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column()
    facts.add_column(overflow="fold")  # an address that is cut leads nowhere
    rows = {
        "job": f"{job.name}  ({job.id})",
        "campaign": f"{job.campaign_name or ''} ({job.campaign_id})",
        "why": job.why,
        "what": f"{' x '.join(filter(None, (job.task, job.method)))}, {gang_text(job.spec)}",
        "from": ", ".join(
            f"{role} {source}" if isinstance(job.spec, JobSpec) else source for role, source in job.spec.sources.items()
        ),
        "step": steps(job),
        "eta": duration(job.progress.eta_s) if job.progress and not job.state.is_terminal else "",
        "ran": duration(elapsed(job, now)),
        "on disk": size(job.bytes_on_disk),
        "mlflow": job.run_url or job.run_id or "",
        "": _UNPUBLISHED if job.state.is_terminal and job.started_at is not None and not job.published else "",
        "fetch": f"prunus fetch job:{job.id} DEST" if job.state is JobState.SUCCEEDED else "",
    }
    facts.add_row(Text("state", style="bold"), state_text(job.state))
    for name, value in rows.items():
        if value:
            facts.add_row(Text(name, style="bold"), Text(value))
    pages: list[RenderableType] = [facts]
    if job.attempts:
        attempts = new_table("ATTEMPT", "STATE", "REASON", "RAN", "MESSAGE")
        for attempt in job.attempts:
            end = attempt.finished_at or now or time.time()
            ran = end - attempt.started_at if attempt.started_at else None
            reason = attempt.reason.value if attempt.reason else ""
            attempts.add_row(
                str(attempt.number),
                state_text(attempt.state),
                Text(reason),
                Text(duration(ran)),
                Text(attempt.message),
            )
        pages += [Text(""), attempts]
    values = job.metrics or (job.progress.metrics if job.progress else {})
    if values:
        table = new_table("METRIC", "VALUE")
        for curve, last in sorted(values.items()):
            table.add_row(Text(curve), Text(number(last)))
        pages += [Text(""), table]
    return Group(*pages)
