"""The life of a job, and what the end of an attempt means for it. Pure: no clock, no database.

              parents done          admitted          first sign of life
    BLOCKED ───────────────> QUEUED ────────> STARTING ────────────────> RUNNING
      │  │                    │ │ ^             │  │ │                    │ │ │
      │  │ cancel      cancel │ │ └─── retry ───┴──┼─┼────────────────────┘ │ │
      │  └──────> CANCELLED <─┘ │                  │ └── cancel, timeout ───┼─┤
      │ a parent      ^ ^       │ source missing   │ outcome, or Ray three  │ v
      │ did not       │ │       └───> FAILED <─────┴──── times ─────────────┤ CANCELLING
      v succeed       │ │                ^                                  │  │ │ │
    SKIPPED           │ └────────────────┼── stopped from outside ──────────┘  │ │ │
                      └──────────────────┼──────────── Ray says it is over ────┘ │ │
                                         └── it ran longer than timeout_s ───────┘ │
    SUCCEEDED <───── outcome.json says so (also when it wins the race against a cancel)┘

SUCCEEDED, FAILED, CANCELLED and SKIPPED are final.
"""

from collections.abc import Mapping

from prunus.configs import StopReason
from prunus.service.wire import JobState

_S = JobState

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    _S.BLOCKED: frozenset({_S.QUEUED, _S.SKIPPED, _S.CANCELLED}),
    _S.QUEUED: frozenset({_S.STARTING, _S.FAILED, _S.CANCELLED}),
    _S.STARTING: frozenset({_S.RUNNING, _S.SUCCEEDED, _S.FAILED, _S.CANCELLING, _S.CANCELLED, _S.QUEUED}),
    _S.RUNNING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLING, _S.CANCELLED, _S.QUEUED}),
    _S.CANCELLING: frozenset({_S.CANCELLED, _S.FAILED, _S.SUCCEEDED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.SKIPPED: frozenset(),
}
"""From each state, where a job may go."""

WAITING = frozenset({_S.BLOCKED, _S.QUEUED})
"""Nothing of the job runs."""

ACTIVE = frozenset({_S.STARTING, _S.RUNNING, _S.CANCELLING})
"""An attempt lives and holds resources."""

END_STATES: Mapping[StopReason, JobState] = {
    StopReason.SUCCEEDED: _S.SUCCEEDED,
    StopReason.CANCELLED: _S.CANCELLED,
    StopReason.USER_ERROR: _S.FAILED,
    StopReason.OUT_OF_MEMORY: _S.FAILED,
    StopReason.STORAGE: _S.FAILED,
    StopReason.LAUNCH_FAILED: _S.FAILED,
    StopReason.WORKER_LOST: _S.FAILED,
    StopReason.PREEMPTED: _S.FAILED,
    StopReason.TIMEOUT: _S.FAILED,
    StopReason.INTERNAL: _S.FAILED,
}
"""State of a job whose last attempt ended so, when no retry is due."""


def end_state(reason: StopReason) -> JobState:
    """State of a job whose last attempt ended with ``reason``."""
    return END_STATES[reason]


def check_transition(old: JobState, new: JobState) -> None:
    """Assert that a job may go from ``old`` to ``new``: a wrong pair is a defect of ours."""
    assert new in TRANSITIONS[old], f"{old} -> {new} is not drawn in prunus.service.states"
