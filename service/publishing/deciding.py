"""What is next for an ended job whose run may not be complete in MLflow. Pure."""

from dataclasses import dataclass
from typing import Literal

from prunus.service.attempts.spool import Spool
from prunus.service.wire import JobState

STATUS = {JobState.SUCCEEDED: "FINISHED", JobState.FAILED: "FAILED", JobState.CANCELLED: "KILLED"}
"""What MLflow calls the end of a job."""

MAX_TRIES = 20

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 30.0, 3600.0

Action = Literal["wait", "end", "settle", "carry", "give up"]


@dataclass(frozen=True)
class Facts:
    """All that the decision about one ended job rests on."""

    state: JobState
    spool: Spool | None
    """None: nothing was logged."""
    quiet: bool
    """Nobody writes to the spool any more."""
    num_tries: int
    running: bool
    """A try runs."""
    due: bool
    """The pause after the last try is over."""
    gave_up: bool = False


@dataclass(frozen=True)
class Decision:
    """What to do about one job, and why."""

    action: Action
    why: str


def decide(facts: Facts) -> Decision:
    """Choose what is next for an ended job that is not published."""
    spool = facts.spool
    if not facts.quiet:
        return Decision("wait", "its processes may still write")
    if facts.running:
        return Decision("wait", "a try runs")
    if spool is None:
        return Decision("settle", "nothing was logged, so nothing is missing in MLflow")
    if spool.status != STATUS[facts.state]:
        return Decision("end", f"the spool ends with {spool.status or 'no status'}, the job with {facts.state}")
    if spool.cursor.offset >= spool.size:
        return Decision("settle", f"MLflow has all {spool.size} bytes of the spool")
    missing = f"MLflow has {spool.cursor.offset} of {spool.size} bytes of the spool"
    if facts.gave_up:
        return Decision("wait", f"{missing}; somebody has to carry it over by hand")
    if facts.num_tries >= MAX_TRIES:
        return Decision("give up", f"{missing} after {facts.num_tries} tries")
    if not facts.due:
        return Decision("wait", f"{missing}; the next try is later")
    return Decision("carry", missing)


def pause_after(num_tries: int) -> float:
    """Seconds to wait after the ``num_tries``-th try: 30, 60, 120, ... up to an hour."""
    return float(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(num_tries - 1, 20)))
