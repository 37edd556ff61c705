"""Tables and pages of jobs, by hand."""

from typing import Any

import pytest

from prunus.service.cli.shown.jobs import job_page, jobs_table
from prunus.service.cli.shown.live import follow_table
from prunus.service.wire import JobDetail, JobState
from tests.service.cli.shown.views import job, text
from tests.service.world import make_spec


def test_square_brackets_of_others_are_shown_and_not_obeyed() -> None:
    view = job(why="[bold]8 GPUs[/bold] asked, [/nothing] free")
    for table in (jobs_table([view], now=1100.0), follow_table([view], now=1100.0)):
        assert "[bold]8 GPUs[/bold] asked, [/nothing] free" in text(table)


def test_a_long_reason_is_folded_and_not_lost() -> None:
    words = [f"word{i}" for i in range(40)]
    shown = text(jobs_table([job(why=" ".join(words))], now=1100.0), width=100)
    assert all(word in shown for word in words)


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
    assert (words in text(job_page(view, now=1100.0))) is told
