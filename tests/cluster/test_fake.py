"""The fake keeps the promises of the seam that the scheduler leans on."""

from pathlib import Path

import pytest

from prunus.cluster.errors import ClusterUnreachable
from prunus.cluster.executor import Executor, Poll
from prunus.cluster.fake import FakeExecutor
from prunus.configs import JobSpec, Launch, Outcome
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import JobDirectory
from prunus.configs.artifacts.manifest import verify

FILES = {"files": ["/data/rows.csv"]}


def make_launch(root: Path) -> Launch:
    spec = JobSpec.model_validate(
        {
            "name": "a",
            "task": {"name": "classification", "data": {"train": FILES, "eval": FILES}},
            "model": {"from": "org/base"},
            "train": {"num_steps": 1, "lr": {"peak": 1e-3}},
        }
    )
    launch = Launch(
        prunus_version="0",
        job_id="j-1",
        job_name="a",
        attempt=1,
        attempt_id="j-1-a1",
        token="1",
        job_dir=str(root),
        cache_dir=str(root),
        spec=spec,
    )
    write_atomic(JobDirectory(root).launch(1), launch.model_dump_json(by_alias=True))
    return launch


def test_a_second_submission_adopts_and_an_unknown_attempt_is_unknown(tmp_path: Path) -> None:
    fake = FakeExecutor()
    executor: Executor = fake
    launch = make_launch(tmp_path)
    assert executor.poll("j-1-a1") == Poll("unknown")
    executor.submit(launch)
    fake.say("j-1-a1", "running")
    executor.submit(launch)
    assert executor.poll("j-1-a1") == Poll("running")
    executor.stop("j-9-a9")
    assert executor.driver_log("j-9-a9") == ""


def test_a_submission_without_its_launch_file_is_a_defect(tmp_path: Path) -> None:
    launch = make_launch(tmp_path)
    JobDirectory(tmp_path).launch(1).unlink()
    with pytest.raises(AssertionError, match=r"launch\.json"):
        FakeExecutor().submit(launch)


def test_what_it_leaves_is_what_a_real_attempt_leaves(tmp_path: Path) -> None:
    fake = FakeExecutor(automatic=True)
    fake.submit(make_launch(tmp_path))
    directory = JobDirectory(tmp_path)
    assert verify(directory.artifacts).job_id == "j-1"
    outcome = Outcome.model_validate_json(directory.outcome(1).read_text())
    assert (outcome.attempt_id, outcome.token) == ("j-1-a1", "1")


def test_nothing_is_answered_while_it_is_away(tmp_path: Path) -> None:
    fake = FakeExecutor()
    fake.reachable = False
    for call in (
        fake.capacity,
        lambda: fake.poll("a"),
        lambda: fake.stop("a"),
        lambda: fake.submit(make_launch(tmp_path)),
    ):
        with pytest.raises(ClusterUnreachable):
            call()
