"""How the driver puts into one outcome what the ranks of a failed gang left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray.train.v2.api.exceptions import WorkerGroupError

from prunus.cluster import driver, gang
from prunus.cluster.driver import _failure
from prunus.configs import ComparisonSpec, JobSpec, Launch, Outcome, RankError, StopReason, __version__
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import JobDirectory

LOST = StopReason.WORKER_LOST


def launch_of(root: Path, num_ranks: int) -> Launch:
    spec = {
        "name": "j",
        "task": {"name": "masked_lm", "data": {"train": {"files": ["text.txt"]}}},
        "model": {"from": "some/model"},
        "train": {"num_steps": 1, "batch_size": 12, "lr": {"peak": 1e-3}},
        "resources": {"num_ranks": num_ranks},
    }
    return Launch(
        prunus_version="0",
        job_id="j",
        job_name="j",
        attempt=1,
        attempt_id="j-a1",
        token="1",
        job_dir=str(root),
        cache_dir=str(root),
        spec=JobSpec.model_validate(spec),
    )


def fail(root: Path, num_ranks: int, *records: tuple[int, StopReason, str]) -> dict[str, object]:
    """What the driver says when these ranks left these words, in this order of time."""
    directory = JobDirectory(root)
    for order, (rank, reason, message) in enumerate(records):
        record = RankError(rank=rank, reason=reason, message=message, time=float(order))
        write_atomic(directory.rank_error(1, rank), record.model_dump_json())
    return _failure(directory, launch_of(root, num_ranks), RuntimeError("Ray's own words"))


def test_the_earliest_word_is_the_cause(tmp_path: Path) -> None:
    facts = fail(tmp_path, 3, (2, StopReason.USER_ERROR, "no such column"), (0, StopReason.USER_ERROR, "later"))
    assert facts == {"reason": StopReason.USER_ERROR, "message": "no such column", "failed_rank": 2}


def test_a_rank_that_lost_its_peer_is_not_the_cause_where_another_knows_one(tmp_path: Path) -> None:
    facts = fail(tmp_path, 2, (0, LOST, "reset by peer"), (1, StopReason.STORAGE, "the disk is full"))
    assert (facts["reason"], facts["failed_rank"]) == (StopReason.STORAGE, 1)


def test_the_only_silent_rank_is_the_one_that_died(tmp_path: Path) -> None:
    facts = fail(tmp_path, 2, (0, LOST, "reset by peer"))
    assert (facts["reason"], facts["failed_rank"]) == (LOST, 1)
    assert str(facts["message"]).startswith("rank 1 died without a word")
    assert "Rank 0 noticed: reset by peer" in str(facts["message"])


def test_of_several_silent_ranks_none_is_accused(tmp_path: Path) -> None:
    facts = fail(tmp_path, 4, (1, LOST, "reset by peer"))
    assert facts["failed_rank"] is None
    assert "one of the ranks 0, 2, 3 died" in str(facts["message"])


def test_a_rank_whose_death_only_ray_saw_is_named(tmp_path: Path) -> None:
    error = WorkerGroupError("[Rank 1 Error Snippet]: gone", {1: RuntimeError("gone")})
    found = _failure(JobDirectory(tmp_path), launch_of(tmp_path, 2), error)
    assert (found["reason"], found["failed_rank"]) == ("worker_lost", 1)
    assert found["message"].startswith("rank 1 died without a word")


def test_all_ranks_lost_each_other(tmp_path: Path) -> None:
    facts = fail(tmp_path, 2, (0, LOST, "reset"), (1, LOST, "closed"))
    assert (facts["reason"], facts["message"], facts["failed_rank"]) == (LOST, "reset", None)


@pytest.mark.parametrize("damaged", ["", "{", "[]"])
def test_without_a_readable_word_it_is_a_lost_worker_in_the_words_of_ray(tmp_path: Path, damaged: str) -> None:
    write_atomic(JobDirectory(tmp_path).rank_error(1, 0), damaged)
    facts = fail(tmp_path, 1)
    assert facts["reason"] is LOST
    assert "Ray's own words" in str(facts["message"])


def comparison_of(root: Path) -> Path:
    """The launch of a comparison, where the driver looks for it."""
    spec = ComparisonSpec.model_validate({"name": "c", "compare": {"jobs": ["a", "b"]}})
    launch = launch_of(root, 1).model_copy(update={"spec": spec, "prunus_version": __version__})
    path = JobDirectory(root).launch(1)
    write_atomic(path, launch.model_dump_json(by_alias=True))
    return path


def outcome_of(root: Path) -> Outcome:
    return Outcome.model_validate_json(JobDirectory(root).outcome(1).read_text())


def test_ray_that_cannot_be_joined_is_a_failed_launch_and_no_lost_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = JobDirectory(tmp_path).launch(1)
    launch = launch_of(tmp_path, 1).model_copy(update={"prunus_version": __version__})
    write_atomic(path, launch.model_dump_json(by_alias=True))

    def refuse() -> None:
        raise ConnectionError("no head at this address")

    monkeypatch.setattr(gang, "connect", refuse)
    assert driver.main(str(path)) == 1
    outcome = outcome_of(tmp_path)
    assert outcome.reason is StopReason.LAUNCH_FAILED
    assert outcome.message.startswith("Ray could not be joined (ConnectionError: no head at this address); check that")


IN_THE_DRIVER = """
import os, sys, time
from pathlib import Path
from prunus.cluster import driver

def run_rank(config):
    heavy = [name for name in ("ray", "torch") if name in sys.modules]
    Path(config["launch"] + ".seen").write_text(f"{heavy} {os.nice(0)}")
    time.sleep(60)

driver.run_rank = run_rank
driver.enter()
"""
"""The driver with a rank that says what it finds, and waits."""


def test_a_comparison_runs_in_the_driver_without_ray_and_its_stop_leaves_an_outcome(tmp_path: Path) -> None:
    path = comparison_of(tmp_path)
    seen = Path(f"{path}.seen")
    with subprocess.Popen([sys.executable, "-c", IN_THE_DRIVER, path]) as process:
        while not (seen.is_file() and seen.read_text()):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1
    assert seen.read_text() == f"[] {min(19, os.nice(0) + 15)}"
    outcome = outcome_of(tmp_path)
    assert (outcome.reason, outcome.message) == (StopReason.CANCELLED, "the driver was told to stop")
