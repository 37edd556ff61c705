"""How what the ranks of a failed gang left becomes one cause."""

from pathlib import Path

import pytest
from ray.train.v2.api.exceptions import WorkerGroupError

from prunus.cluster.failures import explain_failure
from prunus.configs import RankError, StopReason
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import JobDirectory
from tests.cluster.launches import launch_of

LOST = StopReason.WORKER_LOST


def fail(root: Path, num_ranks: int, *records: tuple[int, StopReason, str]) -> dict[str, object]:
    """What the driver says when these ranks left these words, in this order of time."""
    directory = JobDirectory(root)
    for order, (rank, reason, message) in enumerate(records):
        record = RankError(rank=rank, reason=reason, message=message, time=float(order))
        write_atomic(directory.rank_error(1, rank), record.model_dump_json())
    return explain_failure(directory, launch_of(root, num_ranks), RuntimeError("Ray's own words"))


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
    found = explain_failure(JobDirectory(tmp_path), launch_of(tmp_path, 2), error)
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
