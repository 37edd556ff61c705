"""What a recipe will do over its steps, drawn for the terminal."""

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from prunus.configs import AnySpec, Campaign, JobSpec
from prunus.service.cli.drawing.chart import chart
from prunus.service.cli.drawing.curves import Curves, curves


def page(campaign: Campaign, width: int) -> Group:
    """Draw every job for the terminal.

    Args:
        width: Columns of the terminal.
    """
    return Group(*(part for spec in campaign.jobs for part in _job(spec, max(20, min(width, 100) - 12))))


def _job(spec: AnySpec, width: int) -> list[Text]:
    if not isinstance(spec, JobSpec):
        names = ", ".join(spec.sources)
        return [Text(f"{spec.name}: compares {names}", style="bold"), Text(f"{'':10}trains nothing"), Text("")]
    job = curves(spec)
    lines = [Text(title_of(spec, job), style="bold")]
    if job.sparsity:
        lines += _axes("sparsity", job.sparsity, 1.0, width, "green")
    if job.updates:
        reached, last = job.sparsity.index(max(job.sparsity)), job.updates[-1]
        chosen = f"masks chosen {len(job.updates)} times, the last after step {last:,}"
        lines.append(Text(f"{'':10}{job.sparsity[-1]:g} from step {reached:,}; {chosen}"))
    lines += _axes("lr", job.learning_rate, max(job.learning_rate) or 1.0, width, "blue")
    lines.append(Text(f"{'':10}0{job.num_steps:>{width - 1},}"))
    return [*lines, Text("")]


def _axes(name: str, values: Sequence[float], top: float, width: int, style: str) -> list[Text]:
    lines = chart(values, top, width, 5)
    labels = [f"{top:.3g}", *[""] * (len(lines) - 2), "0"]
    labels[len(lines) // 2] = name
    return [Text(f"{label:>8}  ") + Text(line, style=style) for label, line in zip(labels, lines, strict=True)]


def title_of(spec: JobSpec, job: Curves) -> str:
    steps = (
        f"{job.num_steps:,} steps"
        if job.known
        else f"{spec.train.num_epochs:g} epochs, drawn as {job.num_steps:,} steps"
    )
    return f"{spec.name}: {spec.task.name} x {spec.method.name}, {steps}"
