"""Starts queued jobs, oldest first: admit, resolve their sources, commit the attempt, tell Ray."""

import logging
from collections.abc import Callable, Mapping
from functools import partial

from prunus.cluster.errors import ClusterError, ClusterUnreachable
from prunus.cluster.executor import Executor
from prunus.configs import StopReason
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import JobDirectory
from prunus.service.attempts.evidence import Left
from prunus.service.attempts.launch import build_launch
from prunus.service.errors import NotFound, Refused, Unreachable
from prunus.service.scheduling.admission import Admission, Gang, Held, Limit, admit
from prunus.service.scheduling.closing import Closer
from prunus.service.scheduling.guarding import Guard
from prunus.service.scheduling.verdict import Verdict
from prunus.service.settings import Settings
from prunus.service.sources.resolve import Sources
from prunus.service.store.rows import AttemptRow, CampaignRow, JobRow
from prunus.service.store.store import Store
from prunus.service.wire import JobState

log = logging.getLogger(__name__)

_NOTHING = Left(None, None, None)
_REGISTRY_AGAIN_S = 15.0
"""Pause before a registry that did not answer is asked again for the same job."""


class Dispatcher:
    """One per scheduler.

    Args:
        store: The truth.
        executor: Ray.
        sources: Resolves references.
        settings: Where files lie, and what a launch is told.
        clock: Unix seconds.
        closer: Closes an attempt that Ray refuses.
        guard: Keeps jobs apart, and is told whether Ray answers.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        sources: Sources,
        settings: Settings,
        clock: Callable[[], float],
        closer: Closer,
        guard: Guard,
    ) -> None:
        self._store, self._executor, self._sources, self._settings = store, executor, sources, settings
        self._clock, self._closer, self._guard = clock, closer, guard
        self._not_before: dict[str, float] = {}

    def dispatch(self) -> None:
        """Look at every queued job once, the oldest first."""
        now = self._clock()
        jobs = self._store.jobs([JobState.QUEUED])
        queued = {job.id: job for job in jobs if now >= self._not_before.get(job.id, 0.0)}
        if not queued:
            return
        try:
            capacity = self._executor.capacity()
        except ClusterError as error:
            self._guard.note_ray(answers=False, why=str(error))
            for job in queued.values():
                self._guard.run(job, partial(self._store.set_why, job, f"the cluster cannot be asked: {error}"))
            return
        self._guard.note_ray(answers=True)
        active = self._store.active()
        campaigns = self._store.campaigns(job.campaign_id for job in [*queued.values(), *(job for job, _ in active)])
        held = [Held(_gang(job, campaigns), attempt.placement) for job, attempt in active]
        for decision in admit([_gang(job, campaigns) for job in queued.values()], held, capacity):
            job = queued[decision.gang.job_id]
            if decision.action == "wait":
                self._guard.run(job, partial(self._store.set_why, job, decision.reason))
            else:
                self._guard.run(job, partial(self._start, job, decision))

    def _start(self, job: JobRow, decision: Admission) -> None:
        try:
            self._sources.resolve_all(job)
        except (Refused, NotFound) as error:
            why = f"{StopReason.USER_ERROR}: {error}"
            self._store.transition(job, JobState.FAILED, why, finished_at=self._clock())
            log.info("job=%s QUEUED -> FAILED: %s", job.id, why)
            return
        except Unreachable as error:
            self._not_before[job.id] = self._clock() + _REGISTRY_AGAIN_S
            self._store.set_why(job, f"a source cannot be looked up yet: {error}")
            return
        attempt = self._store.begin_attempt(job, decision.placement, decision.reason)
        log.info("attempt=%s QUEUED -> STARTING: %s", attempt.id, decision.reason)
        self.submit(self._store.job(job.id), attempt)

    def submit(self, job: JobRow, attempt: AttemptRow) -> None:
        """Tell Ray of a committed attempt; harmless if it has heard already."""
        directory = JobDirectory(self._settings.job_directory(job.id))
        try:
            campaign = self._store.campaigns([job.campaign_id])[job.campaign_id]
            launch = build_launch(self._settings, campaign, job, attempt, self._sources.resolve_all(job))
            write_atomic(directory.launch(attempt.number), launch.model_dump_json(by_alias=True, indent=1))
        except (Refused, NotFound) as error:
            self._closer.close(job, attempt, _NOTHING, Verdict(True, StopReason.USER_ERROR, str(error)))
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
            self._closer.close(
                job, attempt, _NOTHING, Verdict(True, StopReason.LAUNCH_FAILED, f"Ray refused it: {error}")
            )
            return
        self._store.note(attempt, submitted_at=self._clock())
        log.info("attempt=%s Ray has it", attempt.id)


def _gang(job: JobRow, campaigns: Mapping[str, CampaignRow]) -> Gang:
    campaign = campaigns[job.campaign_id]
    limit = Limit(campaign.id, campaign.title, campaign.max_parallel) if campaign.max_parallel else None
    return Gang(job.seq, job.id, job.name, job.spec.resources, limit)
