"""What people see: rich tables and the words in them. Pure: takes views, returns renderables or text; prints nothing.

Whatever comes from a server or a recipe is put into ``Text``, so that square brackets in it are not markup.
Colour is never the only signal: every state is a word.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from prunus.configs import AnySpec, Campaign, JobSpec
from prunus.configs.artifacts.zeros_report import Report, Total
from prunus.configs.methods.parp import Parp
from prunus.configs.methods.union import MethodSpec
from prunus.service.submission.shipped_recipes import Recipe
from prunus.service.wire import JobDetail, JobState, JobView

_STYLES = {
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "bold red",
    JobState.CANCELLED: "yellow",
    JobState.CANCELLING: "yellow",
    JobState.SKIPPED: "yellow",
    JobState.RUNNING: "bold cyan",
    JobState.STARTING: "cyan",
}


_NOTHING_TO_TELL = "attempt 1 ended: succeeded"
"""The reason of most jobs that succeeded: their state says it."""
_UNPUBLISHED = "MLflow does not have everything yet; the job's spool keeps it until MLflow answers"


def duration(seconds: float | None) -> str:
    """Write seconds as people do: ``42s``, ``3m05s``, ``2h07m``, ``3d04h``; "" for None."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02d}h"


def size(num_bytes: int | None) -> str:
    """Write a number of bytes with a decimal unit; "" for None."""
    if num_bytes is None:
        return ""
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def metric(metrics: Mapping[str, float], room: str, preferred: Sequence[str]) -> float | None:
    """Pick the one value of ``room/...`` to show: the first preferred one that is there, else the first of the room."""
    for name in preferred:
        if f"{room}/{name}" in metrics:
            return metrics[f"{room}/{name}"]
    return next((value for name, value in metrics.items() if name == room or name.startswith(f"{room}/")), None)


def loss(job: JobView) -> float | None:
    """The loss to show for a job."""
    return metric(job.progress.metrics if job.progress else job.metrics, "loss", ("total", "train", "task"))


def sparsity(job: JobView) -> float | None:
    """The share of the prunable weights that is removed now."""
    metrics = {**(job.progress.metrics if job.progress else {}), **job.metrics}
    return metric(metrics, "sparsity", ("prunable", "overall", "total"))


def elapsed(job: JobView, now: float | None = None) -> float | None:
    """Seconds from the first launch to the end, or to now."""
    if job.started_at is None:
        return None
    return (job.finished_at or now or time.time()) - job.started_at


def steps(job: JobView) -> str:
    """``120/1000``, or the phase before training."""
    if job.progress is None or job.state.is_terminal:
        return ""
    if job.progress.num_steps and job.progress.step:
        return f"{job.progress.step}/{job.progress.num_steps}"
    return job.progress.phase


def state_text(state: JobState) -> Text:
    """A state as a coloured word."""
    return Text(state.value, style=_STYLES.get(state, ""))


def jobs_table(jobs: Iterable[JobView], now: float | None = None) -> Table:
    """Table of ``prunus list``."""
    table = _table("NAME", "CAMPAIGN", "STATE", "STEP", "AGE", "RAN", "WHY", "ID")
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


def follow_table(jobs: Iterable[JobView], now: float | None = None) -> Table:
    """Live view: one line a job, whatever the width; ``prunus why`` tells a reason that is cut here."""
    table = _table("NAME", "STATE", "PROGRESS", "STEP", "LOSS", "SPARSITY", "ETA", "RAN", "WHY")
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


def plan_table(campaign: Campaign) -> Table:
    """Table of ``prunus submit --dry-run``: the jobs as they would be queued."""
    headers = ("JOB", "TASK", "METHOD", "MODEL", "TEACHER", "LENGTH", "BATCH", "GANG", "ENGINE", "AFTER")
    rows = []
    for job in campaign.jobs:
        if not isinstance(job, JobSpec):
            compared = f"{len(job.sources)} jobs"
            rows.append((job.name, "comparison", "", compared, "", "", "", _gang(job), "", _after(job)))
            continue
        cells = (
            job.name,
            job.task.name,
            _method(job.method),
            job.model.source,
            job.distillation.teacher if job.distillation else "",
            f"{job.train.num_steps} steps" if job.train.num_steps else f"{job.train.num_epochs:g} epochs",
            f"{job.train.batch_seconds:g} s" if job.train.batch_seconds else str(job.train.batch_size),
            _gang(job),
            f"{job.engine.strategy} {job.engine.precision}",
            _after(job),
        )
        rows.append(cells)
    used = [place for place, column in enumerate(zip(*rows, strict=True)) if any(column)]
    table = _table(*(headers[place] for place in used))
    for row in rows:
        table.add_row(*(Text(row[place]) for place in used))
    return table


def _method(method: MethodSpec) -> str:
    """Name and sparsity: one number, or from where to where."""
    target = getattr(method, "final_sparsity", None)
    if target is None:
        return str(method.name)
    first = method.first_sparsity if isinstance(method, Parp) else getattr(method, "initial_sparsity", 0.0) or target
    return f"{method.name} {first:g} to {target:g}" if first < target else f"{method.name} {target:g}"


def job_view(job: JobDetail, now: float | None = None) -> Group:
    """Page of ``prunus show``."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column()
    facts.add_column(overflow="fold")  # an address that is cut leads nowhere
    rows = {
        "job": f"{job.name}  ({job.id})",
        "campaign": f"{job.campaign_name or ''} ({job.campaign_id})",
        "why": job.why,
        "what": f"{' x '.join(filter(None, (job.task, job.method)))}, {_gang(job.spec)}",
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
        attempts = _table("ATTEMPT", "STATE", "REASON", "RAN", "MESSAGE")
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
        table = _table("METRIC", "VALUE")
        for curve, last in sorted(values.items()):
            table.add_row(Text(curve), Text(number(last)))
        pages += [Text(""), table]
    return Group(*pages)


def recipes_table(recipes: Iterable[Recipe]) -> Table:
    """Table of ``prunus recipes``."""
    table = _table("RECIPE", "WHAT")
    for recipe in recipes:
        table.add_row(Text(recipe.name), Text(recipe.description))
    return table


def number(value: float | None) -> str:
    """Four significant digits; "" for None."""
    return "" if value is None else f"{value:.4g}"


def _after(job: AnySpec) -> str:
    return ", ".join(dict.fromkeys((*job.after, *job.parents)))


def _gang(job: AnySpec) -> str:
    gpus = job.resources.gpus_per_rank
    each = f"{gpus} GPU" if gpus else f"{job.resources.cpus_per_rank:g} CPU"
    return f"{job.resources.num_ranks} x {each}"


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in headers:
        wide = header in {"WHY", "MESSAGE", "WHAT"}
        table.add_column(
            header, overflow="fold", no_wrap=header in {"STATE", "STEP", "ID", "NAME"}, ratio=1 if wide else None
        )
    return table


def report_view(report: Report) -> Group:
    """Page of ``prunus inspect``."""
    table = _table("TENSOR", "SHAPE", "WEIGHTS", "ZEROS", "SPARSITY", "COUNTED")
    for layer in report.layers:
        cells = (
            layer.name,
            " x ".join(map(str, layer.shape)) or "scalar",
            f"{layer.weights:,}",
            f"{layer.zeros:,}",
            f"{layer.sparsity:.4f}",
            "yes" if layer.counted else "",
        )
        table.add_row(*(Text(cell) for cell in cells))
    return Group(table, Text(""), *(Text(total_line(t)) for t in report.totals), *(Text(n) for n in report.notes))


def total_line(total: Total) -> str:
    """``prunable weights (36 of 103 tensors, 10,616,832 weights): 0.9000``."""
    return (
        f"{total.of} ({total.tensors} of {total.of_tensors} tensors, {total.weights:,} weights): {total.sparsity:.4f}"
    )


@contextlib.contextmanager
def byte_progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar over the bytes of a fetch; silent where the console is no terminal."""
    columns = (TextColumn("{task.fields[file]}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, file="")

        def report(name: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, file=name)

        yield report
