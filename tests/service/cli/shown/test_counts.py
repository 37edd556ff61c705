"""Jobs by state, in words."""

from prunus.service.cli.shown.counts import counts_line
from prunus.service.wire import JobState as S
from tests.service.cli.shown.views import named_job


def test_counts_are_told_with_what_ended_first() -> None:
    jobs = [
        named_job("a", S.BLOCKED),
        named_job("b", S.RUNNING),
        named_job("c", S.SUCCEEDED),
        named_job("d", S.SUCCEEDED),
        named_job("e", S.FAILED),
    ]
    assert counts_line(jobs) == "5 jobs: 2 SUCCEEDED, 1 FAILED, 1 RUNNING, 1 BLOCKED"
