"""What a recipe will do over its steps, as PNG."""

import importlib
from pathlib import Path
from typing import Any

from prunus.configs import Campaign, JobSpec
from prunus.service.cli.drawing.curves import curves
from prunus.service.cli.drawing.page import title_of
from prunus.service.errors import Refused


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
            one.set_title(title_of(spec, job), fontsize=9, loc="left")
            one.grid(alpha=0.3)
            one.set_xlabel("optimizer step" if row == rows - 1 else "")
    try:
        drawn.savefig(path)
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be written: {error}") from error


def _training(campaign: Campaign) -> list[JobSpec]:
    return [spec for spec in campaign.jobs if isinstance(spec, JobSpec)]
