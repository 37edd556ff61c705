"""Lines and tables of jobs that run, by hand."""

from prunus.service.cli.shown.live import follow_line, follow_page, follow_table
from prunus.service.wire import JobState
from tests.service.cli.shown.views import job, named_job, progress, text


def test_a_line_tells_state_step_loss_sparsity_eta_and_time() -> None:
    metrics = {"loss/task": 2.5, "loss/total": 1.23456, "sparsity/prunable": 0.9, "sparsity/layer.0": 0.1}
    view = job(progress=progress(metrics=metrics))
    expected = "prune: RUNNING  120/1000  loss 1.235  sparsity 0.9  eta 1m28s  ran 1m30s"
    assert follow_line(view, now=1100.0) == expected


def test_a_line_before_training_tells_the_phase_and_why() -> None:
    view = job(
        state=JobState.STARTING, progress=progress(phase="data", step=0, num_steps=None, eta_s=None), why="1 of 2"
    )
    assert follow_line(view, now=1011.0) == "prune: STARTING  data  ran 1s  (1 of 2)"


def test_an_ended_job_has_no_eta_and_its_time_stands_still() -> None:
    view = job(state=JobState.SUCCEEDED, finished_at=1075.0, progress=progress(), metrics={"loss/eval": 0.5})
    assert "eta" not in follow_line(view, now=9999.0)
    assert "ran 1m05s" in follow_line(view, now=9999.0)


def test_the_live_view_has_one_line_a_job_whatever_the_reason() -> None:
    waiting = job(name="student", state=JobState.BLOCKED, started_at=None, why="waits for " + "many jobs, " * 20)
    shown = text(follow_table([job(progress=progress()), waiting], now=1100.0), width=90)
    lines = shown.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("prune") and "120/1000" in lines[1] and "1m28s" in lines[1]
    assert lines[2].startswith("student") and "BLOCKED" in lines[2] and lines[2].rstrip().endswith("…")


def test_a_live_view_higher_than_the_screen_keeps_what_happens_and_counts_the_rest() -> None:
    jobs = [
        *(named_job(f"done{i}", JobState.SUCCEEDED) for i in range(40)),
        *(named_job(f"going{i}", JobState.RUNNING) for i in range(4)),
        *(named_job(f"waits{i}", JobState.QUEUED) for i in range(50)),
        named_job("broken", JobState.FAILED),
    ]
    lines = text(follow_page(jobs, height=20)).splitlines()
    assert len(lines) <= 20
    assert lines[0] == "95 jobs: 40 SUCCEEDED, 1 FAILED, 4 RUNNING, 50 QUEUED"
    shown = [line.split()[0] for line in lines[2:-1]]
    assert shown[:5] == ["going0", "going1", "going2", "going3", "broken"]
    assert lines[-1] == "and 79 more: 40 SUCCEEDED, 39 QUEUED"
    assert len(text(follow_page(jobs, height=100)).splitlines()) == 96
