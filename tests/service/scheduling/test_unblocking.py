"""When a blocked job may be queued."""

import pytest

from prunus.service.scheduling.unblocking import Parent, unblock
from prunus.service.wire import JobState as S


@pytest.mark.parametrize(
    ("parents", "action", "words"),
    [
        ([], "queue", "nothing comes before"),
        ([("a", S.SUCCEEDED), ("b", S.SUCCEEDED)], "queue", "all 2 jobs"),
        ([("a", S.SUCCEEDED), ("b", S.RUNNING)], "wait", "1 of 2 jobs before it have succeeded; waits for b (RUNNING)"),
        (
            [("a", S.SUCCEEDED), ("b", S.RUNNING), ("c", S.QUEUED), ("d", S.QUEUED), ("e", S.BLOCKED)],
            "wait",
            "1 of 5 jobs before it have succeeded; waits for b (RUNNING), c (QUEUED), d (QUEUED) and 1 more",
        ),
        ([("a", S.BLOCKED)], "wait", "0 of 1"),
        ([("a", S.CANCELLING)], "wait", "a (CANCELLING)"),
        ([("a", S.RUNNING), ("b", S.FAILED)], "skip", "b came first and ended FAILED"),
        ([("a", S.CANCELLED)], "skip", "a came first and ended CANCELLED"),
        ([("a", S.SKIPPED)], "skip", "a came first and ended SKIPPED"),
    ],
)
def test_a_blocked_job_is_queued_skipped_or_waits(parents: list[tuple[str, S]], action: str, words: str) -> None:
    decision = unblock([Parent(*parent) for parent in parents])
    assert decision.action == action
    assert words in decision.reason
