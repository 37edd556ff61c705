"""What should happen next to one job: pure functions from what is known to a decision that carries its arithmetic.

Whether a gang may start is in ``service.scheduling.admission``. No clock, no database, no network here.
"""

from dataclasses import dataclass, replace

from prunus.cluster.executor import Poll
from prunus.configs import Outcome, RankError, StopReason

NUM_AGREEING_READS = 3
"""So often in a row must Ray say the same before it is believed that an attempt is over."""

LEASE_S = 30.0
"""An attempt whose heartbeat is younger lives, whatever Ray says."""

STOPPING_LEASE_S = 5.0
"""The same for an attempt that was asked to stop; rank 0 writes every few seconds while it lives."""

FRESH_S = 10.0
"""Ray is not even asked about an attempt whose heartbeat is younger: a question a second for every job costs a laptop
4% of a core, and the dashboard of a large cluster its answers."""

STOP_AGAIN_S = 15.0
"""Pause between two requests to stop the same attempt."""


@dataclass(frozen=True)
class Evidence:
    """All that is known of a live attempt."""

    attempt_id: str
    token: str
    outcome: Outcome | None
    """``outcome.json`` of the attempt's directory, whoever wrote it."""
    heartbeat_age_s: float | None
    """Seconds since the progress was last seen to change; None: there was none yet."""
    ray: Poll | None
    """None: Ray does not answer."""
    last_status: str | None
    """The status that Ray gave before, if it spoke of an end, and ...."""
    num_reads: int
    """... how often in a row."""
    first_error: RankError | None = None
    """Earliest error that a rank left."""
    stop_reason: StopReason | None = None
    """Why we asked for its end, if we did."""


@dataclass(frozen=True)
class Verdict:
    """Is the attempt over?"""

    ended: bool
    reason: StopReason | None
    """How it ended; None while it has not."""
    why: str
    ray_status: str | None = None
    """To remember for the next verdict."""
    ray_reads: int = 0
    outcome: Outcome | None = None
    """The attempt's own outcome, if that is what ended it."""


def judge(evidence: Evidence) -> Verdict:
    """Weigh the evidence: the outcome, then the heartbeat, then Ray after three agreeing reads."""
    if has_own_outcome(evidence):
        assert evidence.outcome is not None
        said = evidence.outcome.reason
        reason = _with_stop(said, evidence.stop_reason)
        why = f"outcome.json says {said}{_unasked(said, reason)}"
        return Verdict(True, reason, why, outcome=evidence.outcome)
    if is_fresh(evidence):
        return Verdict(False, None, f"the heartbeat is {evidence.heartbeat_age_s:.0f} s old")
    if evidence.ray is None:
        return Verdict(
            False, None, "Ray does not answer: nothing is concluded", evidence.last_status, evidence.num_reads
        )
    status = evidence.ray.status
    if status in {"pending", "running"}:
        return Verdict(False, None, f"Ray says {status}")
    reads = evidence.num_reads + 1 if status == evidence.last_status else 1
    lease = LEASE_S if evidence.stop_reason is None else STOPPING_LEASE_S
    if evidence.heartbeat_age_s is not None and evidence.heartbeat_age_s < lease:
        why = f"Ray says {status}, but the heartbeat is {evidence.heartbeat_age_s:.0f} s old, less than {lease:.0f} s"
        return Verdict(False, None, why, status, reads)
    if reads < NUM_AGREEING_READS:
        return Verdict(False, None, f"Ray says {status}: read {reads} of {NUM_AGREEING_READS}", status, reads)
    reason, what = _end_by_ray(evidence, status)
    ended = _with_stop(reason, evidence.stop_reason)
    why = f"no outcome.json, {reads} reads agree: {what}{_unasked(reason, ended)}"
    return Verdict(True, ended, why, status, reads)


def has_own_outcome(evidence: Evidence) -> bool:
    """Whether the outcome was written by this attempt: an older one, with another token, counts for nothing."""
    outcome = evidence.outcome
    return outcome is not None and outcome.attempt_id == evidence.attempt_id and outcome.token == evidence.token


def is_fresh(evidence: Evidence) -> bool:
    """Whether the heartbeat alone says that the attempt lives; one that was asked to stop may end at any moment."""
    age_s = evidence.heartbeat_age_s
    return age_s is not None and age_s < FRESH_S and evidence.stop_reason is None


def replace_ray(evidence: Evidence, ray: Poll | None) -> Evidence:
    """The same evidence with Ray's word."""
    return replace(evidence, ray=ray)


def overdue(running_s: float, timeout_s: float | None) -> str | None:
    """Say that an attempt has run for too long; None if it has not."""
    if timeout_s is None or running_s <= timeout_s:
        return None
    return f"ran {running_s:.0f} s, timeout_s is {timeout_s:g}"


def should_send_stop(now: float, sent_at: float | None) -> bool:
    """Ask Ray to stop an attempt at once, then every 15 s until it is over."""
    return sent_at is None or now - sent_at >= STOP_AGAIN_S


def _end_by_ray(evidence: Evidence, status: str) -> tuple[StopReason, str]:
    if evidence.first_error is not None:
        return evidence.first_error.reason, f"Ray says {status}, rank {evidence.first_error.rank} left its error"
    if status == "succeeded":
        what = "Ray says succeeded, but the driver left no outcome; check that server and cluster share the storage"
        return StopReason.STORAGE, what
    if status == "unknown":
        return StopReason.WORKER_LOST, "Ray does not know the attempt (its head was restarted)"
    if status == "stopped":
        return StopReason.WORKER_LOST, "Ray says stopped, though we did not ask"
    if evidence.heartbeat_age_s is None:
        return StopReason.LAUNCH_FAILED, "Ray says failed, before the first rank gave a sign of life"
    return StopReason.WORKER_LOST, "Ray says failed; often the node ran out of memory or was taken away"


def _with_stop(reason: StopReason, stop_reason: StopReason | None) -> StopReason:
    """What follows from our own stop is not the job's failure; a success that came first stays one. An attempt that
    was told to stop, but not by us, is no user's cancel: it was taken from us."""
    if stop_reason is None:
        return StopReason.PREEMPTED if reason is StopReason.CANCELLED else reason
    return reason if reason is StopReason.SUCCEEDED else stop_reason


def _unasked(said: StopReason, ended: StopReason) -> str:
    if said is not StopReason.CANCELLED or ended is not StopReason.PREEMPTED:
        return ""
    return (
        ", but nobody asked prunus for it: stopped from outside (`ray job stop`, a signal, or its node was taken away)"
    )
