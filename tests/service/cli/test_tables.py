"""Words and tables, by hand."""

import io
from typing import Any

import pytest
from rich.console import Console

from prunus.configs import Progress
from prunus.configs.artifacts.zeros_report import Layer, Report, total
from prunus.service.cli import tables as render
from prunus.service.wire import JobDetail, JobState, JobView
from tests.service.world import make_campaign, make_spec


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


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (0.4, "0s"), (59.4, "59s"), (60, "1m00s"), (3599, "59m59s"), (7620, "2h07m"), (273_600, "3d04h")],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert render.duration(seconds) == words


@pytest.mark.parametrize(
    ("num_bytes", "words"),
    [(None, ""), (999, "999 B"), (1000, "1.0 kB"), (45_300_000, "45.3 MB"), (2 * 10**12, "2.0 TB")],
)
def test_sizes(num_bytes: int | None, words: str) -> None:
    assert render.size(num_bytes) == words


def test_a_line_tells_state_step_loss_sparsity_eta_and_time() -> None:
    metrics = {"loss/task": 2.5, "loss/total": 1.23456, "sparsity/prunable": 0.9, "sparsity/layer.0": 0.1}
    view = job(progress=progress(metrics=metrics))
    expected = "prune: RUNNING  120/1000  loss 1.235  sparsity 0.9  eta 1m28s  ran 1m30s"
    assert render.follow_line(view, now=1100.0) == expected


def test_a_line_before_training_tells_the_phase_and_why() -> None:
    view = job(
        state=JobState.STARTING, progress=progress(phase="data", step=0, num_steps=None, eta_s=None), why="1 of 2"
    )
    assert render.follow_line(view, now=1011.0) == "prune: STARTING  data  ran 1s  (1 of 2)"


def test_an_ended_job_has_no_eta_and_its_time_stands_still() -> None:
    view = job(state=JobState.SUCCEEDED, finished_at=1075.0, progress=progress(), metrics={"loss/eval": 0.5})
    assert "eta" not in render.follow_line(view, now=9999.0)
    assert "ran 1m05s" in render.follow_line(view, now=9999.0)


def test_square_brackets_of_others_are_shown_and_not_obeyed() -> None:
    view = job(why="[bold]8 GPUs[/bold] asked, [/nothing] free")
    for table in (render.jobs_table([view], now=1100.0), render.follow_table([view], now=1100.0)):
        assert "[bold]8 GPUs[/bold] asked, [/nothing] free" in text(table)


def test_a_long_reason_is_folded_and_not_lost() -> None:
    words = [f"word{i}" for i in range(40)]
    shown = text(render.jobs_table([job(why=" ".join(words))], now=1100.0), width=100)
    assert all(word in shown for word in words)


def test_the_live_view_has_one_line_a_job_whatever_the_reason() -> None:
    waiting = job(name="student", state=JobState.BLOCKED, started_at=None, why="waits for " + "many jobs, " * 20)
    shown = text(render.follow_table([job(progress=progress()), waiting], now=1100.0), width=90)
    lines = shown.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("prune") and "120/1000" in lines[1] and "1m28s" in lines[1]
    assert lines[2].startswith("student") and "BLOCKED" in lines[2] and lines[2].rstrip().endswith("…")


def test_a_report_names_its_denominators() -> None:
    layers = [Layer(name=f"l{i}.weight", shape=(10, 10), weights=100, zeros=90, counted=i < 2) for i in range(3)]
    totals = (total("prunable weights", layers[:2], 3), total("all weights", layers, 3))
    report = Report(path="out", kind="model", layers=tuple(layers), totals=totals)
    shown = text(render.report_view(report))
    assert "prunable weights (2 of 3 tensors, 200 weights): 0.9000" in shown
    assert "all weights (3 of 3 tensors, 300 weights): 0.9000" in shown


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"state": JobState.FAILED}, True),
        ({"state": JobState.SUCCEEDED, "published": True}, False),
        ({"state": JobState.RUNNING}, False),
        ({"state": JobState.SKIPPED, "started_at": None}, False),
    ],
)
def test_an_ended_job_tells_what_mlflow_still_lacks(given: dict[str, Any], told: bool) -> None:
    view = JobDetail(**job(**given).model_dump(), spec=make_spec("prune"))
    words = "MLflow does not have everything yet; the job's spool keeps it until MLflow answers"
    assert (words in text(render.job_view(view, now=1100.0))) is told


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"name": "dense"}, "dense"),
        ({"name": "parp", "final_sparsity": 0.9}, "parp 0.9"),
        ({"name": "parp", "initial_sparsity": 0.6, "final_sparsity": 0.9}, "parp 0.6 to 0.9"),
        ({"name": "parp", "initial_sparsity": 0.0, "final_sparsity": 0.9}, "parp 0 to 0.9"),
        ({"name": "gradual_magnitude", "final_sparsity": 0.5}, "gradual_magnitude 0.5"),
        ({"name": "gradual_magnitude", "initial_sparsity": 0.5, "final_sparsity": 0.5}, "gradual_magnitude 0.5"),
    ],
)
def test_a_plan_says_from_which_sparsity_to_which(method: dict[str, Any], words: str) -> None:
    table = render.plan_table(make_campaign(make_spec("a", method=method)))
    assert [str(cell) for cell in table.columns[2].cells] == [words]
