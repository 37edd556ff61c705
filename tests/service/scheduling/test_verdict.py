"""Decisions about one job, by tables worked out by hand."""

from typing import Any

import pytest

from prunus.cluster.executor import Poll
from prunus.configs import Outcome, RankError, StopReason
from prunus.service.scheduling.verdict import Evidence, is_fresh, judge, overdue, should_send_stop


def outcome(token: str = "7", attempt_id: str = "j-1-a1", reason: StopReason = StopReason.SUCCEEDED) -> Outcome:
    return Outcome(attempt_id=attempt_id, token=token, reason=reason)


def evidence(**more: Any) -> Evidence:
    known: dict[str, Any] = {
        "attempt_id": "j-1-a1",
        "token": "7",
        "outcome": None,
        "heartbeat_age_s": None,
        "ray": Poll("running"),
        "last_status": None,
        "num_reads": 0,
    }
    return Evidence(**{**known, **more})


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        # The outcome comes first, whatever else is said.
        ({"outcome": outcome(), "ray": Poll("failed"), "num_reads": 9, "last_status": "failed"}, "succeeded"),
        ({"outcome": outcome(reason=StopReason.OUT_OF_MEMORY), "heartbeat_age_s": 1.0}, "out_of_memory"),
        ({"outcome": outcome(), "ray": None}, "succeeded"),
        # Another attempt's outcome counts for nothing.
        ({"outcome": outcome(token="6")}, None),
        ({"outcome": outcome(attempt_id="j-1-a0")}, None),
        # Ray's end counts at the third agreeing read, and not under a fresh heartbeat.
        ({"ray": Poll("failed")}, None),
        ({"ray": Poll("failed"), "last_status": "failed", "num_reads": 1}, None),
        ({"ray": Poll("failed"), "last_status": "failed", "num_reads": 2}, "launch_failed"),
        ({"ray": Poll("failed"), "last_status": "unknown", "num_reads": 2}, None),
        ({"ray": Poll("failed"), "last_status": "failed", "num_reads": 2, "heartbeat_age_s": 29.9}, None),
        ({"ray": Poll("failed"), "last_status": "failed", "num_reads": 2, "heartbeat_age_s": 30.0}, "worker_lost"),
        ({"ray": Poll("unknown"), "last_status": "unknown", "num_reads": 2}, "worker_lost"),
        ({"ray": Poll("stopped"), "last_status": "stopped", "num_reads": 2}, "worker_lost"),
        ({"ray": Poll("succeeded"), "last_status": "succeeded", "num_reads": 2}, "storage"),
        # No answer proves nothing.
        ({"ray": None, "last_status": "failed", "num_reads": 2, "heartbeat_age_s": 9999.0}, None),
        ({"ray": Poll("running"), "heartbeat_age_s": 9999.0}, None),
        # What follows from our own stop is the stop; a success that came first is not.
        (
            {
                "ray": Poll("stopped"),
                "last_status": "stopped",
                "num_reads": 2,
                "heartbeat_age_s": 6.0,
                "stop_reason": StopReason.CANCELLED,
            },
            "cancelled",
        ),
        ({"outcome": outcome(reason=StopReason.WORKER_LOST), "stop_reason": StopReason.TIMEOUT}, "timeout"),
        ({"outcome": outcome(), "stop_reason": StopReason.CANCELLED}, "succeeded"),
        ({"outcome": outcome(reason=StopReason.CANCELLED), "stop_reason": StopReason.CANCELLED}, "cancelled"),
        # A stop that is not ours is no cancel.
        ({"outcome": outcome(reason=StopReason.CANCELLED)}, "preempted"),
    ],
)
def test_evidence_is_weighed_in_order(more: dict[str, Any], reason: str | None) -> None:
    verdict = judge(evidence(**more))
    assert (verdict.reason.value if verdict.reason else None) == reason
    assert verdict.ended is (reason is not None)


@pytest.mark.parametrize(
    ("more", "status", "reads"),
    [
        ({"ray": Poll("failed")}, "failed", 1),
        ({"ray": Poll("failed"), "last_status": "failed", "num_reads": 1}, "failed", 2),
        ({"ray": Poll("failed"), "last_status": "unknown", "num_reads": 2}, "failed", 1),
        ({"ray": Poll("running"), "last_status": "failed", "num_reads": 2}, None, 0),
        ({"ray": None, "last_status": "failed", "num_reads": 2}, "failed", 2),
    ],
)
def test_reads_are_counted_only_while_they_agree(more: dict[str, Any], status: str | None, reads: int) -> None:
    verdict = judge(evidence(**more))
    assert (verdict.ray_status, verdict.ray_reads) == (status, reads)


@pytest.mark.parametrize(
    ("age_s", "stop_reason", "fresh"),
    [(9.9, None, True), (10.0, None, False), (None, None, False), (1.0, StopReason.CANCELLED, False)],
)
def test_ray_is_not_asked_under_a_fresh_heartbeat_unless_the_attempt_was_asked_to_stop(
    age_s: float | None, stop_reason: StopReason | None, fresh: bool
) -> None:
    known = evidence(heartbeat_age_s=age_s, stop_reason=stop_reason, ray=None, last_status="failed", num_reads=2)
    assert is_fresh(known) is fresh
    verdict = judge(known)
    assert not verdict.ended
    assert (verdict.ray_status, verdict.ray_reads) == ((None, 0) if fresh else ("failed", 2))
    assert ("does not answer" in verdict.why) is not fresh


def test_the_error_a_rank_left_names_the_reason() -> None:
    error = RankError(rank=1, reason=StopReason.OUT_OF_MEMORY, message="out of memory", time=1.0)
    verdict = judge(evidence(ray=Poll("failed"), last_status="failed", num_reads=2, first_error=error))
    assert verdict.reason is StopReason.OUT_OF_MEMORY


@pytest.mark.parametrize(("running", "limit", "late"), [(60.0, 60.0, False), (60.1, 60.0, True), (1e9, None, False)])
def test_an_attempt_is_overdue_after_its_timeout(running: float, limit: float | None, late: bool) -> None:
    assert (overdue(running, limit) is not None) is late


def test_a_stop_is_sent_at_once_and_then_every_15_seconds() -> None:
    assert should_send_stop(100.0, None)
    assert not should_send_stop(114.9, 100.0)
    assert should_send_stop(115.0, 100.0)
