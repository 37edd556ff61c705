"""The loop that moves jobs on: read -> decide (``policies``, ``gangs``) -> act -> write.

    step():  watch     every live attempt: stop what was asked to stop, confirm what Ray may not have heard of,
                       weigh the evidence, close what is over
             unblock   every BLOCKED job: queue it or skip it
             dispatch  every QUEUED job, oldest first: admit, resolve its sources, commit the attempt, tell Ray

Nothing is remembered here that a restart may not lose: an attempt exists in the database before Ray hears of it, and
submitting it again adopts it. MLflow is needed only to resolve ``models:/``; a job that waits for it delays no other.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prunus.cluster.errors import ClusterError, ClusterUnreachable
from prunus.cluster.executor import Executor, Poll
from prunus.configs import Outcome, StopReason
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import JobDirectory
from prunus.service.attempts.evidence import DRIVER_LOG, Left, driver_log_tail, read_attempt
from prunus.service.attempts.launch import build_launch
from prunus.service.errors import NotFound, Refused, StaleTransition, StoreError, Unreachable
from prunus.service.scheduling import verdict as policies
from prunus.service.scheduling.admission import Admission, Gang, Held, Limit, admit
from prunus.service.scheduling.ending import explain_end, summarize_end
from prunus.service.scheduling.retries import Retry, retry
from prunus.service.scheduling.unblocking import Parent, all_parents, unblock
from prunus.service.settings import Settings
from prunus.service.sources.resolve import Sources
from prunus.service.states import end_state
from prunus.service.store.rows import AttemptRow, CampaignRow, JobRow
from prunus.service.store.store import Store
from prunus.service.wire import JobState

log = logging.getLogger(__name__)

_NOTHING = Left(None, None, None)
_REGISTRY_AGAIN_S = 15.0
"""Pause before a registry that did not answer is asked again for the same job."""


AfterEnd = Callable[[JobRow, Outcome | None], None]
"""Called with a job that has ended, and its outcome if it left one."""


def keep_quiet(job: JobRow, outcome: Outcome | None) -> None:
    """The default of ``Scheduler.after_end``: nothing."""


@dataclass
class _Sighting:
    """When this process last saw a heartbeat change. Our clock only: the nodes' clocks may differ."""

    stamp: float
    seen_at: float


@dataclass
class _Memory:
    """What makes the loop cheaper and quieter; lost at a restart without harm."""

    sightings: dict[str, _Sighting] = field(default_factory=dict)
    stale_outcomes: set[str] = field(default_factory=set)
    not_before: dict[str, float] = field(default_factory=dict)
    ray_answers: bool = True


class Scheduler:
    """One per store.

    Args:
        store: The truth.
        executor: Ray.
        sources: Resolves references at dispatch.
        settings: Where files lie, and what a launch is told.
        clock: Unix seconds.
        after_end: Called once when a job has reached a final state through an attempt, with its outcome if it left
            one. The hook for what may happen later, such as publishing the spool of a job whose MLflow was away
            (``outcome.published`` is false). It must return at once; what it raises is logged.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        sources: Sources,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        after_end: AfterEnd = keep_quiet,
    ) -> None:
        self._store = store
        self._executor = executor
        self._sources = sources
        self._settings = settings
        self._clock = clock
        self._after_end = after_end
        self._memory = _Memory()
        self._wake = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Step until ``stop`` is set; call ``wake`` after setting it."""
        log.info("scheduler: begins, a step every %g s", self._settings.poll_interval_s)
        while not stop.is_set():
            self._wake.clear()
            try:
                self.step()
            except Exception:
                # The edge of this thread: a store that is away, or a defect of ours, must not end the scheduling.
                log.exception("scheduler: a step failed; the next one begins anew")
            self._wake.wait(self._settings.poll_interval_s)
        log.info("scheduler: ends; what runs goes on, and is taken up again at the next start")

    def wake(self) -> None:
        """Step now instead of at the end of the pause."""
        self._wake.set()

    def step(self) -> None:
        """Look at everything once."""
        for job, attempt in self._store.active():
            self._guarded(job, partial(self._watch, job, attempt))
        blocked = self._store.jobs([JobState.BLOCKED])
        parents = self._store.jobs(ids={parent for job in blocked for parent in job.parents}) if blocked else []
        found = {row.id: Parent(row.name, row.state) for row in parents}
        for job in blocked:
            self._guarded(job, partial(self._unblock, job, found))
        self._dispatch()

    def _guarded(self, job: JobRow, act: Callable[[], None]) -> None:
        """Run one job's part of a step, so that no job can stop the others."""
        try:
            act()
        except StaleTransition as error:
            log.info("job=%s %s", job.id, error)
        except ClusterUnreachable as error:
            self._note_ray(answers=False, why=str(error))
        except StoreError:
            raise
        except Exception:
            # One job with, say, an unreadable directory must not keep all others from being looked at.
            log.exception("job=%s its part of the step failed; tried again at the next step", job.id)

    # ---- watch

    def _watch(self, job: JobRow, attempt: AttemptRow) -> None:
        directory = JobDirectory(self._settings.job_directory(job.id))
        left = read_attempt(directory, attempt.number)
        if attempt.submitted_at is None and job.state is JobState.STARTING and left.outcome is None:
            self._submit(job, attempt)
            return
        self._send_stop(job, attempt)
        verdict = policies.judge(self._evidence(attempt, left))
        if verdict.ended:
            self._end(job, attempt, left, verdict)
            return
        self._observe(job, attempt, left, verdict)

    def _evidence(self, attempt: AttemptRow, left: Left) -> policies.Evidence:
        evidence = policies.Evidence(
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
            if policies.has_own_outcome(evidence):
                return evidence
            self._note_stale(attempt, left.outcome)
        if policies.is_fresh(evidence):
            return evidence
        return policies.replace_ray(evidence, self._poll(attempt))

    def _observe(self, job: JobRow, attempt: AttemptRow, left: Left, verdict: policies.Verdict) -> None:
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
        late = policies.overdue(self._clock() - (attempt.submitted_at or self._clock()), job.spec.timeout_s)
        if late is not None and job.state is not JobState.CANCELLING:
            self._store.request_stop(job.id, StopReason.TIMEOUT, f"{late}: stopping")
            log.info("attempt=%s %s: stopping", attempt.id, late)

    def _send_stop(self, job: JobRow, attempt: AttemptRow) -> None:
        now = self._clock()
        if job.state is JobState.CANCELLING and policies.should_send_stop(now, attempt.stop_sent_at):
            try:
                self._executor.stop(attempt.id)
            except ClusterUnreachable as error:
                self._note_ray(answers=False, why=str(error))
                return
            self._store.note(attempt, stop_sent_at=now)
            log.info("attempt=%s stop sent to Ray (%s)", attempt.id, attempt.stop_reason)

    def _poll(self, attempt: AttemptRow) -> Poll | None:
        try:
            poll = self._executor.poll(attempt.id)
        except ClusterError as error:
            self._note_ray(answers=False, why=str(error))
            return None
        self._note_ray(answers=True)
        return poll

    def _heartbeat_age(self, attempt: AttemptRow, left: Left) -> float | None:
        if left.progress is None or left.progress.attempt_id != attempt.id:
            return None
        now = self._clock()
        known = self._memory.sightings.get(attempt.id)
        if known is None or known.stamp != left.progress.time:
            known = self._memory.sightings[attempt.id] = _Sighting(left.progress.time, now)
        return now - known.seen_at

    def _end(self, job: JobRow, attempt: AttemptRow, left: Left, verdict: policies.Verdict) -> None:
        assert verdict.reason is not None
        message = explain_end(verdict, left, self._keep_driver_log(job, attempt))
        retry = self._retry(job, attempt, verdict.reason)
        state = end_state(verdict.reason)
        new = JobState.QUEUED if retry.again else state
        summary = summarize_end(attempt.number, verdict, message)
        why = f"{summary}; {retry.reason}" if retry.again else summary
        if left.progress is not None and left.progress != attempt.progress:
            self._store.note(attempt, progress=left.progress)
        columns = _results(verdict.outcome, job)
        self._store.end_attempt(job, attempt, verdict.reason, state, new, message, why, **columns)
        self._store.log_event(job.id, attempt.id, "evidence", f"{verdict.why}; {retry.reason}")
        log.info("attempt=%s %s -> %s: %s; %s", attempt.id, job.state, new, verdict.why, retry.reason)
        self._memory.sightings.pop(attempt.id, None)
        if new.is_terminal:
            self._call_after_end(job, verdict.outcome)

    def _retry(self, job: JobRow, attempt: AttemptRow, reason: StopReason) -> Retry:
        if attempt.stop_reason is not None or end_state(reason) is not JobState.FAILED:
            return Retry(False, f"no retry: {reason} is final")
        earlier = [a for a in self._store.attempts([job.id])[job.id] if a.token != attempt.token]
        return retry(reason, sum(a.reason is reason for a in earlier))

    def _keep_driver_log(self, job: JobRow, attempt: AttemptRow) -> str:
        try:
            text = self._executor.driver_log(attempt.id)
            path = JobDirectory(self._settings.job_directory(job.id)).attempt(attempt.number) / DRIVER_LOG
            write_atomic(path, driver_log_tail(text))
        except (ClusterError, OSError) as error:
            log.info("attempt=%s the driver's log could not be kept: %s", attempt.id, error)
            return ""
        return text

    def _call_after_end(self, job: JobRow, outcome: Outcome | None) -> None:
        try:
            self._after_end(self._store.job(job.id), outcome)
        except Exception:
            # A hook of somebody else: the job has ended, whatever it does.
            log.exception("job=%s the hook after its end failed", job.id)

    # ---- unblock

    def _unblock(self, job: JobRow, found: dict[str, Parent]) -> None:
        decision = unblock(all_parents(job.parents, found))
        if decision.action == "queue":
            self._store.transition(job, JobState.QUEUED, decision.reason)
        elif decision.action == "skip":
            self._store.transition(job, JobState.SKIPPED, decision.reason, finished_at=self._clock())
            found[job.id] = Parent(job.name, JobState.SKIPPED)  # so that what waits for it is skipped as well
        else:
            self._store.set_why(job, decision.reason)
            return
        log.info("job=%s BLOCKED: %s: %s", job.id, decision.action, decision.reason)

    # ---- dispatch

    def _dispatch(self) -> None:
        now, not_before = self._clock(), self._memory.not_before
        queued = {job.id: job for job in self._store.jobs([JobState.QUEUED]) if now >= not_before.get(job.id, 0.0)}
        if not queued:
            return
        try:
            capacity = self._executor.capacity()
        except ClusterError as error:
            self._note_ray(answers=False, why=str(error))
            for job in queued.values():
                self._guarded(job, partial(self._store.set_why, job, f"the cluster cannot be asked: {error}"))
            return
        self._note_ray(answers=True)
        active = self._store.active()
        campaigns = self._store.campaigns(job.campaign_id for job in [*queued.values(), *(job for job, _ in active)])
        held = [Held(_gang(job, campaigns), attempt.placement) for job, attempt in active]
        for decision in admit([_gang(job, campaigns) for job in queued.values()], held, capacity):
            job = queued[decision.gang.job_id]
            if decision.action == "wait":
                self._guarded(job, partial(self._store.set_why, job, decision.reason))
            else:
                self._guarded(job, partial(self._start, job, decision))

    def _start(self, job: JobRow, decision: Admission) -> None:
        try:
            self._sources.resolve_all(job)
        except (Refused, NotFound) as error:
            why = f"{StopReason.USER_ERROR}: {error}"
            self._store.transition(job, JobState.FAILED, why, finished_at=self._clock())
            log.info("job=%s QUEUED -> FAILED: %s", job.id, why)
            return
        except Unreachable as error:
            self._memory.not_before[job.id] = self._clock() + _REGISTRY_AGAIN_S
            self._store.set_why(job, f"a source cannot be looked up yet: {error}")
            return
        attempt = self._store.begin_attempt(job, decision.placement, decision.reason)
        log.info("attempt=%s QUEUED -> STARTING: %s", attempt.id, decision.reason)
        self._submit(self._store.job(job.id), attempt)

    def _submit(self, job: JobRow, attempt: AttemptRow) -> None:
        """Tell Ray of a committed attempt; harmless if it has heard already."""
        directory = JobDirectory(self._settings.job_directory(job.id))
        try:
            campaign = self._store.campaigns([job.campaign_id])[job.campaign_id]
            launch = build_launch(self._settings, campaign, job, attempt, self._sources.resolve_all(job))
            write_atomic(directory.launch(attempt.number), launch.model_dump_json(by_alias=True, indent=1))
        except (Refused, NotFound) as error:
            self._end(job, attempt, _NOTHING, policies.Verdict(True, StopReason.USER_ERROR, str(error)))
            return
        except Unreachable as error:
            self._store.set_why(job, f"a source cannot be looked up yet: {error}")
            return
        except OSError as error:
            self._store.set_why(job, f"launch.json cannot be written ({error}); is the storage full or away?")
            return
        try:
            self._executor.submit(launch)
        except ClusterUnreachable as error:
            self._store.set_why(
                job, f"the Ray cluster does not answer ({error}); the attempt is submitted when it does"
            )
            raise
        except ClusterError as error:
            self._end(
                job, attempt, _NOTHING, policies.Verdict(True, StopReason.LAUNCH_FAILED, f"Ray refused it: {error}")
            )
            return
        self._store.note(attempt, submitted_at=self._clock())
        log.info("attempt=%s Ray has it", attempt.id)

    # ---- notes

    def _note_stale(self, attempt: AttemptRow, outcome: Outcome) -> None:
        if attempt.id in self._memory.stale_outcomes:
            return
        self._memory.stale_outcomes.add(attempt.id)
        what = (
            f"an outcome of {outcome.attempt_id} with token {outcome.token} was ignored: the token is {attempt.token}"
        )
        self._store.log_event(attempt.job_id, attempt.id, "stale", what)
        log.warning("attempt=%s %s", attempt.id, what)

    def _note_ray(self, *, answers: bool, why: str = "") -> None:
        if answers != self._memory.ray_answers:
            self._memory.ray_answers = answers
            if answers:
                log.info("Ray answers again")
            else:
                log.warning("Ray does not answer, nothing is concluded about attempts: %s", why)


def _gang(job: JobRow, campaigns: Mapping[str, CampaignRow]) -> Gang:
    campaign = campaigns[job.campaign_id]
    limit = Limit(campaign.id, campaign.title, campaign.max_parallel) if campaign.max_parallel else None
    return Gang(job.seq, job.id, job.name, job.spec.resources, limit)


def _results(outcome: Outcome | None, job: JobRow) -> dict[str, Any]:
    """Columns of the job that its outcome fills."""
    if outcome is None:
        return {}
    return {
        "run_id": outcome.run_id or job.run_id,
        "published": outcome.published,
        "metrics": dict(outcome.metrics),
        "bytes_on_disk": outcome.bytes_on_disk,
        "manifest_sha256": outcome.manifest_sha256,
    }
