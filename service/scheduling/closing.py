"""Closes an attempt that is over: cause, driver's log, retry or final state, in one write."""

import logging
from typing import Any

from prunus.cluster.errors import ClusterError
from prunus.cluster.executor import Executor
from prunus.configs import Outcome, StopReason
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import JobDirectory
from prunus.service.attempts.evidence import DRIVER_LOG, Left, driver_log_tail
from prunus.service.scheduling.ending import explain_end, summarize_end
from prunus.service.scheduling.retries import Retry, retry
from prunus.service.scheduling.verdict import Verdict
from prunus.service.settings import Settings
from prunus.service.states import end_state
from prunus.service.store.rows import AttemptRow, JobRow
from prunus.service.store.store import Store
from prunus.service.wire import JobState

log = logging.getLogger(__name__)


class Closer:
    """One per scheduler."""

    def __init__(self, store: Store, executor: Executor, settings: Settings) -> None:
        self._store = store
        self._executor = executor
        self._settings = settings

    def close(self, job: JobRow, attempt: AttemptRow, left: Left, verdict: Verdict) -> None:
        """Write down why an attempt ended, and what becomes of its job."""
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
