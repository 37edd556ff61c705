"""The life of a job."""

import pytest

from prunus.configs import StopReason
from prunus.service.states import ACTIVE, END_STATES, TRANSITIONS, WAITING, check_transition, end_state
from prunus.service.wire import JobState


def test_every_state_has_its_transitions_and_only_final_ones_have_none() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert {state for state in JobState if not TRANSITIONS[state]} == {s for s in JobState if s.is_terminal}


def test_every_reason_has_a_final_state() -> None:
    assert set(END_STATES) == set(StopReason)
    assert all(end_state(reason).is_terminal for reason in StopReason)
    assert end_state(StopReason.SUCCEEDED) is JobState.SUCCEEDED
    assert end_state(StopReason.CANCELLED) is JobState.CANCELLED
    assert end_state(StopReason.TIMEOUT) is JobState.FAILED


def test_a_state_waits_lives_or_is_final() -> None:
    final = {state for state in JobState if state.is_terminal}
    assert WAITING | ACTIVE | final == set(JobState)
    assert not (WAITING & ACTIVE or WAITING & final or ACTIVE & final)


def test_every_live_state_can_reach_every_end_an_attempt_may_have() -> None:
    for state in ACTIVE:
        assert {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED} <= TRANSITIONS[state]


@pytest.mark.parametrize(("old", "new"), [(JobState.SUCCEEDED, JobState.RUNNING), (JobState.BLOCKED, JobState.RUNNING)])
def test_what_is_not_drawn_is_a_defect(old: JobState, new: JobState) -> None:
    with pytest.raises(AssertionError, match="not drawn"):
        check_transition(old, new)
