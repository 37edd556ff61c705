"""The loop that moves jobs on: read -> decide -> act -> write.

    step():  watch     every live attempt: stop what was asked to stop, confirm what Ray may not have heard of,
                       weigh the evidence (``verdict``), close what is over (``ending``, ``retries``)
             unblock   every BLOCKED job: queue it or skip it (``unblocking``)
             dispatch  every QUEUED job, oldest first: admit (``admission``), resolve its sources, commit the attempt,
                       tell Ray

What decides is pure: ``verdict``, ``ending``, ``retries``, ``unblocking``, ``admission``. What acts: ``watching``,
``closing``, ``dispatching``. Nothing is remembered that a restart may not lose: an attempt exists in the database
before Ray hears of it, and submitting it again adopts it. MLflow is needed only to resolve ``models:/``; a job that
waits for it delays no other.
"""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from prunus.cluster.executor import Executor
from prunus.service.scheduling.closing import Closer
from prunus.service.scheduling.dispatching import Dispatcher
from prunus.service.scheduling.guarding import Guard
from prunus.service.scheduling.unblocking import Parent, all_parents, unblock
from prunus.service.scheduling.watching import Watcher
from prunus.service.settings import Settings
from prunus.service.sources.resolve import Sources
from prunus.service.store.rows import JobRow
from prunus.service.store.store import Store
from prunus.service.wire import JobState

log = logging.getLogger(__name__)


class Scheduler:
    """One per store.

    Args:
        store: The truth.
        executor: Ray.
        sources: Resolves references at dispatch.
        settings: Where files lie, and what a launch is told.
        clock: Unix seconds.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        sources: Sources,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._guard = Guard()
        closer = Closer(store, executor, settings)
        self._dispatcher = Dispatcher(store, executor, sources, settings, clock, closer, self._guard)
        self._watcher = Watcher(store, executor, settings, clock, closer, self._guard, self._dispatcher.submit)
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
            self._guard.run(job, partial(self._watcher.watch, job, attempt))
        blocked = self._store.jobs([JobState.BLOCKED])
        parents = self._store.jobs(ids={parent for job in blocked for parent in job.parents}) if blocked else []
        found = {row.id: Parent(row.name, row.state) for row in parents}
        for job in blocked:
            self._guard.run(job, partial(self._unblock, job, found))
        self._dispatcher.dispatch()

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
