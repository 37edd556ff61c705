"""Jobs to show, and what a renderable looks like."""

import io
from typing import Any

from rich.console import Console

from prunus.configs import Progress
from prunus.service.wire import JobState, JobView


def job(**given: Any) -> JobView:
    values: dict[str, Any] = {"id": "j1", "name": "prune", "campaign_id": "c1", "state": JobState.RUNNING}
    return JobView(**{**values, "created_at": 1000.0, "started_at": 1010.0, **given})


def progress(**given: Any) -> Progress:
    values: dict[str, Any] = {"attempt_id": "j1-a1", "time": 0.0, "phase": "training", "step": 120, "num_steps": 1000}
    return Progress(**{**values, "eta_s": 88.4, **given})


def text(renderable: Any, width: int = 200) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(renderable)
    return out.getvalue()


def named_job(name: str, state: JobState, **given: Any) -> JobView:
    started = None if state in {JobState.QUEUED, JobState.BLOCKED, JobState.SKIPPED} else 1010.0
    values: dict[str, Any] = {"id": f"j-{name}", "name": name, "campaign_id": "c1", "state": state}
    return JobView(**{**values, "created_at": 1000.0, "started_at": started, **given})
