"""How numbers, times, states and tables are written. Pure."""

import time
from collections.abc import Mapping, Sequence

import humanize
from rich.table import Table
from rich.text import Text

from prunus.configs import AnySpec
from prunus.service.wire import JobState, JobView

_STYLES = {
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "bold red",
    JobState.CANCELLED: "yellow",
    JobState.CANCELLING: "yellow",
    JobState.SKIPPED: "yellow",
    JobState.RUNNING: "bold cyan",
    JobState.STARTING: "cyan",
}


def duration(seconds: float | None) -> str:
    """Write seconds as people do: ``42s``, ``3m05s``, ``2h07m``, ``3d04h``; "" for None."""
    # Not humanize: its "2 hours and 7 minutes" is too wide for a column, and its "2 hours" too coarse.
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
    return humanize.naturalsize(num_bytes)


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


def number(value: float | None) -> str:
    """Four significant digits; "" for None."""
    return "" if value is None else f"{value:.4g}"


def gang_text(job: AnySpec) -> str:
    """``2 x 1 CPU``: the ranks of a job and what each holds."""
    gpus = job.resources.gpus_per_rank
    each = f"{gpus} GPU" if gpus else f"{job.resources.cpus_per_rank:g} CPU"
    return f"{job.resources.num_ranks} x {each}"


def empty_table() -> Table:
    """A table without lines, its columns two spaces apart."""
    return Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))


def new_table(*headers: str) -> Table:
    """An empty table with these columns; long reasons are folded, names and states stay whole."""
    table = empty_table()
    for header in headers:
        wide = header in {"WHY", "MESSAGE", "WHAT"}
        table.add_column(
            header, overflow="fold", no_wrap=header in {"STATE", "STEP", "ID", "NAME"}, ratio=1 if wide else None
        )
    return table
