"""What is next for an ended job whose run may not be complete."""

import pytest

from prunus.configs import SpoolCursor
from prunus.service.attempts.spool import Spool
from prunus.service.publishing.deciding import MAX_TRIES, Facts, decide, pause_after
from prunus.service.wire import JobState
from tests.service.publishing.test_publisher import facts


@pytest.mark.parametrize(
    ("given", "action"),
    [
        (facts(), "carry"),
        (facts(quiet=False), "wait"),
        (facts(running=True), "wait"),
        (facts(due=False), "wait"),
        (facts(spool=None), "settle"),
        (facts(spool=Spool(100, "FINISHED", SpoolCursor(offset=100))), "settle"),
        (facts(spool=Spool(100, "FINISHED", SpoolCursor(offset=100)), gave_up=True, due=False), "settle"),
        (facts(spool=Spool(100, None, SpoolCursor(offset=100))), "end"),
        (facts(state=JobState.CANCELLED), "end"),
        (facts(spool=Spool(100, None, SpoolCursor(offset=100)), quiet=False), "wait"),
        (facts(num_tries=MAX_TRIES - 1), "carry"),
        (facts(num_tries=MAX_TRIES), "give up"),
        (facts(num_tries=MAX_TRIES, gave_up=True), "wait"),
    ],
)
def test_the_decision(given: Facts, action: str) -> None:
    assert decide(given).action == action


def test_the_pauses_double_up_to_an_hour() -> None:
    assert [pause_after(number) for number in (1, 2, 3, 7, 8, 20)] == [30, 60, 120, 1920, 3600, 3600]
