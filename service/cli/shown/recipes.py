"""What people see of recipes: the shipped ones, and the jobs that one would queue. Pure."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from prunus.configs import AnySpec, Campaign, JobSpec
from prunus.configs.methods.parp import Parp
from prunus.configs.methods.union import MethodSpec
from prunus.service.cli.shown.words import gang_text, new_table
from prunus.service.submission.shipped_recipes import Recipe


def plan_table(campaign: Campaign) -> Table:
    """Table of ``prunus submit --dry-run``: the jobs as they would be queued."""
    headers = ("JOB", "TASK", "METHOD", "MODEL", "TEACHER", "LENGTH", "BATCH", "GANG", "ENGINE", "AFTER")
    rows = []
    for job in campaign.jobs:
        if not isinstance(job, JobSpec):
            compared = f"{len(job.sources)} jobs"
            rows.append((job.name, "comparison", "", compared, "", "", "", gang_text(job), "", _after(job)))
            continue
        cells = (
            job.name,
            job.task.name,
            _method(job.method),
            job.model.source,
            job.distillation.teacher if job.distillation else "",
            f"{job.train.num_steps} steps" if job.train.num_steps else f"{job.train.num_epochs:g} epochs",
            f"{job.train.batch_seconds:g} s" if job.train.batch_seconds else str(job.train.batch_size),
            gang_text(job),
            f"{job.engine.strategy} {job.engine.precision}",
            _after(job),
        )
        rows.append(cells)
    used = [place for place, column in enumerate(zip(*rows, strict=True)) if any(column)]
    table = new_table(*(headers[place] for place in used))
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


def recipes_table(recipes: Iterable[Recipe]) -> Table:
    """Table of ``prunus recipes``."""
    table = new_table("RECIPE", "WHAT")
    for recipe in recipes:
        table.add_row(Text(recipe.name), Text(recipe.description))
    return table


def _after(job: AnySpec) -> str:
    return ", ".join(dict.fromkeys((*job.after, *job.parents)))
