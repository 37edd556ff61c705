"""Looks at a live attempt: stop what was asked to stop, weigh the evidence, close what is over.

What it remembers makes the loop cheaper and quieter, and is lost at a restart without harm.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prunus.cluster.errors import ClusterError, ClusterUnreachable
from prunus.cluster.executor import Executor, Poll
from prunus.configs import Outcome, StopReason
from prunus.configs.artifacts.layout import JobDirectory
from prunus.service.attempts.evidence import Left, read_attempt
from prunus.service.scheduling.closing import Closer
from prunus.service.scheduling.guarding import Guard
from prunus.service.scheduling.verdict import (
    Evidence,
    Verdict,
    has_own_outcome,
    is_fresh,
    judge,
    overdue,
    replace_ray,
    should_send_stop,
)
from prunus.service.settings import Settings
from prunus.service.store.rows import AttemptRow, JobRow
from prunus.service.store.store import Store
from prunus.service.wire import JobState

log = logging.getLogger(__name__)


@dataclass
class _Sighting:
    """When this process last saw a heartbeat change. Our clock only: the nodes' clocks may differ."""

    stamp: float
    seen_at: float


class Watcher:
    """One per scheduler.

    Args:
        store: The truth.
        executor: Ray.
        settings: Where files lie.
        clock: Unix seconds.
        closer: Closes what is over.
        guard: Is told whether Ray answers.
        submit: Tells Ray of an attempt that it may not have heard of.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        settings: Settings,
        clock: Callable[[], float],
        closer: Closer,
        guard: Guard,
        submit: Callable[[JobRow, AttemptRow], None],
    ) -> None:
        self._store, self._executor, self._settings, self._clock = store, executor, settings, clock
        self._closer, self._guard, self._submit = closer, guard, submit
        self._sightings: dict[str, _Sighting] = {}
        self._stale_outcomes: set[str] = set()

    def watch(self, job: JobRow, attempt: AttemptRow) -> None:
        """Look at one attempt once."""
        directory = JobDirectory(self._settings.job_directory(job.id))
        left = read_attempt(directory, attempt.number)
        if attempt.submitted_at is None and job.state is JobState.STARTING and left.outcome is None:
            self._submit(job, attempt)
            return
        self._send_stop(job, attempt)
        verdict = judge(self._evidence(attempt, left))
        if verdict.ended:
            self._closer.close(job, attempt, left, verdict)
            self._sightings.pop(attempt.id, None)
            return
        self._observe(job, attempt, left, verdict)

    def _evidence(self, attempt: AttemptRow, left: Left) -> Evidence:
        evidence = Evidence(
            attempt_id=attempt.id,
            token=str(attempt.token),
            outcome=left.outcome,
            heartbeat_age_s=self._heartbeat_age(attempt, left),
            ray=None,
            last_status=attempt.ray_status,
            num_reads=attempt.ray_reads,
            first_error=left.first_error,
            stop_reason=attempt.stop_reason,
        )
        if left.outcome is not None:
            if has_own_outcome(evidence):
                return evidence
            self._note_stale(attempt, left.outcome)
        if is_fresh(evidence):
            return evidence
        return replace_ray(evidence, self._poll(attempt))

    def _observe(self, job: JobRow, attempt: AttemptRow, left: Left, verdict: Verdict) -> None:
        """Write down what was seen of an attempt that goes on."""
        changes: dict[str, Any] = {}
        if (verdict.ray_status, verdict.ray_reads) != (attempt.ray_status, attempt.ray_reads):
            changes |= {"ray_status": verdict.ray_status, "ray_reads": verdict.ray_reads}
            log.info("attempt=%s %s", attempt.id, verdict.why)
        if left.progress is not None and left.progress != attempt.progress:
            changes["progress"] = left.progress
        if changes:
            self._store.note(attempt, **changes)
        if job.state is JobState.STARTING and left.progress is not None:
            self._store.mark_running(job, attempt, f"attempt {attempt.number} gave its first sign of life")
            log.info("attempt=%s STARTING -> RUNNING", attempt.id)
        elif job.state is JobState.STARTING:
            self._store.set_why(job, f"attempt {attempt.number} starts: {verdict.why}")
        late = overdue(self._clock() - (attempt.submitted_at or self._clock()), job.spec.timeout_s)
        if late is not None and job.state is not JobState.CANCELLING:
            self._store.request_stop(job.id, StopReason.TIMEOUT, f"{late}: stopping")
            log.info("attempt=%s %s: stopping", attempt.id, late)

    def _send_stop(self, job: JobRow, attempt: AttemptRow) -> None:
        now = self._clock()
        if job.state is JobState.CANCELLING and should_send_stop(now, attempt.stop_sent_at):
            try:
                self._executor.stop(attempt.id)
            except ClusterUnreachable as error:
                self._guard.note_ray(answers=False, why=str(error))
                return
            self._store.note(attempt, stop_sent_at=now)
            log.info("attempt=%s stop sent to Ray (%s)", attempt.id, attempt.stop_reason)

    def _poll(self, attempt: AttemptRow) -> Poll | None:
        try:
            poll = self._executor.poll(attempt.id)
        except ClusterError as error:
            self._guard.note_ray(answers=False, why=str(error))
            return None
        self._guard.note_ray(answers=True)
        return poll

    def _heartbeat_age(self, attempt: AttemptRow, left: Left) -> float | None:
        if left.progress is None or left.progress.attempt_id != attempt.id:
            return None
        now = self._clock()
        known = self._sightings.get(attempt.id)
        if known is None or known.stamp != left.progress.time:
            known = self._sightings[attempt.id] = _Sighting(left.progress.time, now)
        return now - known.seen_at

    def _note_stale(self, attempt: AttemptRow, outcome: Outcome) -> None:
        if attempt.id in self._stale_outcomes:
            return
        self._stale_outcomes.add(attempt.id)
        what = (
            f"an outcome of {outcome.attempt_id} with token {outcome.token} was ignored: the token is {attempt.token}"
        )
        self._store.log_event(attempt.job_id, attempt.id, "stale", what)
        log.warning("attempt=%s %s", attempt.id, what)
