"""What a recipe will do over its steps, before anything runs: sparsity and learning rate, in the terminal and as PNG.

The same pure functions (of ``configs.methods`` and ``specs.lr_schedule``) decide in training.
"""

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from prunus.configs import AnySpec, Campaign, JobSpec
from prunus.configs.specs.lr_schedule import lr_factor
from prunus.service.errors import Refused

_UNKNOWN_STEPS = 1000
"""Drawn where the number of steps follows from the data."""
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Bits of a braille character (Unicode, block U+2800) by column and row of the dot."""


@dataclass(frozen=True)
class Curves:
    """A job over its optimizer steps 0 .. num_steps.

    Attributes:
        num_steps: Optimizer steps; a stand-in where ``known`` is false.
        known: False where the steps follow from the data (``num_epochs``).
        learning_rate: At each step 0 .. num_steps - 1.
        sparsity: Of the prunable weights after each step 0 .. num_steps; empty where masks never change.
        updates: Steps after which masks are chosen.
    """

    name: str
    num_steps: int
    known: bool
    learning_rate: tuple[float, ...]
    sparsity: tuple[float, ...]
    updates: tuple[int, ...]


def curves(spec: JobSpec) -> Curves:
    """Evaluate the schedules of a job at every step. Pure."""
    known = spec.train.num_steps is not None
    num_steps = spec.train.num_steps or _UNKNOWN_STEPS
    lr, method = spec.train.lr, spec.method
    rates = tuple(lr.peak * lr_factor(step, num_steps, lr, method) for step in range(num_steps))
    sparsity: list[float] = []
    updates: list[int] = []
    if method.sparsity_at(0, num_steps) is not None:
        reached = 0.0
        for step in range(num_steps + 1):
            if method.updates_after(step, num_steps):
                updates.append(step)
                reached = method.sparsity_at(step, num_steps) or 0.0
            sparsity.append(reached)
    return Curves(spec.name, num_steps, known, rates, tuple(sparsity), tuple(updates))


def page(campaign: Campaign, width: int) -> Group:
    """Draw every job for the terminal.

    Args:
        width: Columns of the terminal.
    """
    return Group(*(part for spec in campaign.jobs for part in _job(spec, max(20, min(width, 100) - 12))))


def save_png(campaign: Campaign, path: Path) -> None:
    """Draw every job into a picture, one row each.

    Raises:
        Refused: Matplotlib is not installed, or the file cannot be written.
    """
    try:
        figure = importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        raise Refused("--png needs Matplotlib; `pip install matplotlib`, or leave it out") from error
    jobs = _training(campaign)
    if not jobs:
        raise Refused("no job of this recipe trains, so there is nothing to draw; leave out --png")
    rows = len(jobs)
    drawn: Any = figure.Figure(figsize=(10, 2.4 * rows), layout="constrained")
    for row, (spec, axes) in enumerate(zip(jobs, drawn.subplots(rows, 2, squeeze=False), strict=True)):
        job = curves(spec)
        axes[0].plot(job.sparsity, color="tab:green", drawstyle="steps-post")
        axes[0].set_ylim(-0.02, 1.02)
        axes[0].set_ylabel("sparsity")
        axes[1].plot(job.learning_rate, color="tab:blue")
        axes[1].set_ylabel("learning rate")
        for one in axes:
            one.set_title(_title(spec, job), fontsize=9, loc="left")
            one.grid(alpha=0.3)
            one.set_xlabel("optimizer step" if row == rows - 1 else "")
    try:
        drawn.savefig(path)
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be written: {error}") from error


def chart(values: Sequence[float], top: float, width: int, height: int) -> list[str]:
    """Draw values against their index with braille dots, 2 x 4 of them a character.

    Args:
        values: At least one; from 0 to ``top``.
        top: Value of the upper edge, > 0.
        width, height: Characters.

    Returns:
        ``height`` lines of ``width`` characters, the highest values first.
    """
    columns, rows = 2 * width, 4 * height
    cells = [[0] * width for _ in range(height)]
    last: int | None = None
    for column in range(columns):
        at = values[round(column / (columns - 1) * (len(values) - 1))]
        row = rows - 1 - min(rows - 1, max(0, math.floor(at / top * (rows - 1) + 0.5)))
        # A jump is drawn as a vertical line beside the dot before, so that the curve has no holes.
        previous = row if last is None or last == row else last + (1 if row > last else -1)
        for dot in range(min(row, previous), max(row, previous) + 1):
            cells[dot // 4][column // 2] |= _DOTS[column % 2][dot % 4]
        last = row
    return ["".join(chr(0x2800 + cell) for cell in line) for line in cells]


def _training(campaign: Campaign) -> list[JobSpec]:
    return [spec for spec in campaign.jobs if isinstance(spec, JobSpec)]


def _job(spec: AnySpec, width: int) -> list[Text]:
    if not isinstance(spec, JobSpec):
        names = ", ".join(spec.sources)
        return [Text(f"{spec.name}: compares {names}", style="bold"), Text(f"{'':10}trains nothing"), Text("")]
    job = curves(spec)
    lines = [Text(_title(spec, job), style="bold")]
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


def _title(spec: JobSpec, job: Curves) -> str:
    steps = (
        f"{job.num_steps:,} steps"
        if job.known
        else f"{spec.train.num_epochs:g} epochs, drawn as {job.num_steps:,} steps"
    )
    return f"{spec.name}: {spec.task.name} x {spec.method.name}, {steps}"
