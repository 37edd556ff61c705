"""Tables and pages of campaigns, by hand."""

from typing import Any

import pytest

from prunus.configs import Progress
from prunus.service.cli.shown.campaigns import campaign_page, campaigns_table
from prunus.service.cli.shown.counts import count_states
from prunus.service.wire import CampaignSummary, CampaignView, JobView
from prunus.service.wire import JobState as S
from tests.service.cli.shown.views import named_job, text


def campaign(*jobs: JobView, **given: Any) -> CampaignView:
    counts = count_states(jobs)
    values: dict[str, Any] = {"id": "c-1", "name": "grid", "created_at": 1000.0, "num_jobs": len(jobs)}
    return CampaignView(**{**values, "counts": counts, "jobs": jobs, **given})


def test_a_campaign_is_a_row_and_only_its_end_is_100_percent() -> None:
    first = CampaignSummary(
        id="c-1", created_at=1000.0, num_jobs=300, counts={S.SUCCEEDED: 299, S.RUNNING: 1}, progress=0.999
    )
    last = CampaignSummary(
        id="c-2",
        name="grid",
        created_at=1000.0,
        finished_at=1090.0,
        max_parallel=4,
        num_jobs=3,
        counts={S.SUCCEEDED: 3},
        progress=1.0,
    )
    rows = [line.split() for line in text(campaigns_table([first, last], now=1120.0)).splitlines()]
    assert rows[1] == ["c-1", "300", "99%", "299", "SUCCEEDED,", "1", "RUNNING", "2m00s", "c-1"]
    assert rows[2] == ["grid", "3", "100%", "3", "SUCCEEDED", "4", "2m00s", "1m30s", "c-2"]


def test_metrics_of_running_and_ended_jobs_share_columns() -> None:
    going = Progress(
        attempt_id="a", time=0.0, phase="training", step=3, num_steps=9, eta_s=60.0, metrics={"eval/wer": 0.5}
    )
    jobs = [
        named_job("a", S.SUCCEEDED, metrics={"eval/wer": 0.25, "eval/other": 1.0}),
        named_job("b", S.RUNNING, progress=going),
    ]
    lines = text(campaign_page(campaign(*jobs), now=1100.0)).splitlines()
    assert lines[-4].split() == ["eval/"] and lines[-3].split() == ["JOB", "STATE", "STEP", "ETA", "RAN", "wer"]
    assert lines[-2].split() == ["a", "SUCCEEDED", "1m30s", "0.25"]
    assert lines[-1].split() == ["b", "RUNNING", "3/9", "1m00s", "1m30s", "0.5"]


def test_jobs_that_never_started_are_folded_by_state_and_failed_ones_never() -> None:
    waiting = [named_job(f"w{i}", S.BLOCKED, why=f"waits for p{i}") for i in range(6)]
    skipped = [named_job(f"s{i}", S.SKIPPED, why="p came first and ended FAILED") for i in range(7)]
    failed = [named_job(f"f{i}", S.FAILED, started_at=None, why=f"no model {i}") for i in range(8)]
    page = text(campaign_page(campaign(*waiting, *skipped, *failed), now=1100.0))
    assert "each its own, --state BLOCKED shows them  (w0 … w5)" in page
    assert "p came first and ended FAILED  (s0 … s6)" in page
    rows = [line.split()[:3] for line in page.splitlines()]
    assert ["6", "jobs", "BLOCKED"] in rows and ["7", "jobs", "SKIPPED"] in rows
    assert all(f"no model {i}" in page for i in range(8))
    whole = text(campaign_page(campaign(*waiting), fold=False, now=1100.0))
    assert all(f"waits for p{i}" in whole for i in range(6))


@pytest.mark.parametrize("width", [100, 80])
def test_on_a_narrow_screen_a_job_is_one_line_and_only_the_reason_is_cut(width: int) -> None:
    metrics = {"eval/cer": 0.25, "sparsity/prunable": 0.9}
    broken = named_job("omp-0.5-es", S.FAILED, why="out of memory: " + "many words " * 20)
    lines = text(campaign_page(campaign(named_job("a", S.SUCCEEDED, metrics=metrics), broken)), width).splitlines()
    assert lines[-4].split() == ["eval/", "sparsity/"]
    assert lines[-3].split() == ["JOB", "STATE", "RAN", "cer", "prunable", "WHY"]
    assert lines[-2].split()[:2] == ["a", "SUCCEEDED"] and lines[-2].split()[-2:] == ["0.25", "0.9"]
    assert lines[-1].split()[:2] == ["omp-0.5-es", "FAILED"] and lines[-1].rstrip().endswith("…")


def test_square_brackets_of_others_are_shown_and_not_obeyed() -> None:
    page = text(campaign_page(campaign(named_job("a", S.FAILED, why="[bold]x[/nothing]\n\nmore")), now=1100.0))
    assert "[bold]x[/nothing]" in page and "more" not in page
