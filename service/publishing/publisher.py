"""Brings to MLflow what it had not taken when a job ended, and gives the runs of killed jobs a true status.

    step():  watch the tries that run on the cluster
             a page of ended, unpublished jobs: read spool and cursor -> decide (pure) -> one of
                 end      the spool does not say how the job ended (killed, lost): append that
                 settle   MLflow has everything: note it in the store
                 carry    MLflow answers: start ``jobs.tracking.late_publish`` on the cluster as ``<job id>-p<n>``
                 give up  after 20 tries: one event

Runs in its own thread beside the scheduler and never makes it wait. Asks MLflow only whether it is there; what ends the
runs of campaigns (``service.publishing.campaign_runs``) is called from here, too.
What a restart loses is the pauses: the tries are counted in the decision log, and a try that Ray knows is adopted.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from prunus.cluster.errors import ClusterRefused, ClusterUnreachable
from prunus.cluster.executor import Executor
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import JobDirectory
from prunus.service.attempts.launch import build_launch
from prunus.service.attempts.spool import append_status, is_quiet, read_spool
from prunus.service.errors import StoreError
from prunus.service.publishing.deciding import MAX_TRIES, STATUS, Facts, decide, pause_after
from prunus.service.settings import Settings
from prunus.service.store.rows import AttemptRow, JobRow
from prunus.service.store.store import Store

log = logging.getLogger(__name__)

PAUSE_S = 20.0
"""Between two steps."""

_LONGEST_TRY_S = 1800.0
"""A try ends by itself after 900 s; what Ray calls running for longer than this is dead."""

_MAX_RUNNING = 4
"""Tries at a time: each loads MLflow's client, several hundred MB."""

_PAGE = 100

_TRY, _GAVE_UP = "carry", "carry-ended"
"""Kinds of event: a try; no more tries."""


@dataclass
class _Tries:
    """The tries for one job: count and end from the decision log, the rest this process's own."""

    count: int
    gave_up: bool
    running_since: float | None
    not_before: float = 0.0


class Publisher:
    """One per store.

    Args:
        store: Knows which jobs are not published.
        executor: Runs the tries.
        settings: Where files lie, and where MLflow is now.
        mlflow_answers: Whether to start a try makes sense; bounded to seconds.
        end_campaigns: Called at the end of every step, see ``service.publishing.campaign_runs``.
        clock: Unix seconds.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        settings: Settings,
        mlflow_answers: Callable[[], bool],
        *,
        end_campaigns: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._executor, self._settings = store, executor, settings
        self._mlflow_answers, self._end_campaigns, self._clock = mlflow_answers, end_campaigns, clock
        self._tries: dict[str, _Tries] = {}
        self._page_before: int | None = None
        self._door: bool | None = None
        """In one step: whether tries can be started; None: not asked yet."""
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Step until ``stop`` is set."""
        self._stop = stop
        while not stop.is_set():
            try:
                self.step()
            except Exception:
                # The edge of this thread: a store that is away, or a defect of ours, must not end the publishing.
                log.exception("publisher: a step failed; the next one begins anew")
            stop.wait(PAUSE_S)

    def step(self) -> None:
        """Look after the running tries, then at one page of unpublished jobs."""
        self._door = None
        for job_id in [job_id for job_id, tries in self._tries.items() if tries.running_since is not None]:
            self._guarded(job_id, partial(self._watch, job_id))
        jobs = self._store.unpublished(_PAGE, self._page_before)
        self._page_before = jobs[-1].seq if len(jobs) == _PAGE else None
        for job in jobs:
            self._guarded(job.id, partial(self._look, job))
        self._end_campaigns()

    def _guarded(self, job_id: str, act: Callable[[], None]) -> None:
        """Do one job's part of a step, so that no job can stop the others."""
        if self._stop.is_set():
            return
        try:
            act()
        except ClusterUnreachable as error:
            self._door = False
            log.info("job=%s Ray does not answer, tries wait: %s", job_id, error)
        except StoreError:
            raise
        except Exception:
            # One job with, say, an unreadable directory must not keep all others from being looked at.
            log.exception("job=%s publishing it failed; tried again at a later step", job_id)

    def _watch(self, job_id: str) -> None:
        """Ask Ray for a running try; one that is over is followed by a pause."""
        tries = self._tries[job_id]
        if self._door is False or tries.running_since is None:
            return
        name = _name(job_id, tries.count)
        poll = self._executor.poll(name)
        if poll.status in {"pending", "running"}:
            if self._clock() - tries.running_since < _LONGEST_TRY_S:
                return
            self._executor.stop(name)
        tries.running_since = None
        tries.not_before = self._clock() + pause_after(tries.count)
        log.info("job=%s the try %s is over: %s %s", job_id, name, poll.status, poll.message)
        self._look(self._store.job(job_id))

    def _look(self, job: JobRow) -> None:
        if job.published:
            return
        directory = JobDirectory(self._settings.job_directory(job.id))
        if not directory.root.parent.is_dir():
            log.info("job=%s the storage of jobs is away: nothing is concluded about its spool", job.id)
            return
        attempts = self._store.attempts([job.id])[job.id]
        tries = self._recall(job)
        facts = Facts(
            state=job.state,
            spool=read_spool(directory),
            quiet=is_quiet(directory, attempts, self._clock()),
            num_tries=tries.count,
            running=tries.running_since is not None,
            due=self._clock() >= tries.not_before,
            gave_up=tries.gave_up,
        )
        self._act(job, attempts[-1], directory, tries, facts)

    def _act(self, job: JobRow, attempt: AttemptRow, directory: JobDirectory, tries: _Tries, facts: Facts) -> None:
        decision = decide(facts)
        match decision.action:
            case "end":
                append_status(directory.spool, STATUS[job.state])
                log.info("job=%s %s appended: %s", job.id, STATUS[job.state], decision.why)
            case "settle":
                run_id = facts.spool.cursor.run_id if facts.spool else None
                self._store.mark_published(job, run_id, decision.why)
                self._tries.pop(job.id, None)
                log.info("job=%s published: %s", job.id, decision.why)
            case "give up":
                tries.gave_up = True
                command = f"python -m prunus.jobs.tracking.late_publish {directory.publish_launch}"
                remedy = f"by hand, on the cluster: {command}"
                self._store.log_event(job.id, None, _GAVE_UP, f"{decision.why}; {remedy}")
                log.warning("job=%s given up: %s; %s", job.id, decision.why, remedy)
            case "carry":
                self._carry(job, attempt, directory, tries, decision.why)
            case "wait":
                pass

    def _carry(self, job: JobRow, attempt: AttemptRow, directory: JobDirectory, tries: _Tries, why: str) -> None:
        if self._door is None:
            self._door = self._mlflow_answers()
        if not self._door or sum(t.running_since is not None for t in self._tries.values()) >= _MAX_RUNNING:
            return
        campaign = self._store.campaigns([job.campaign_id])[job.campaign_id]
        launch = build_launch(self._settings, campaign, job, attempt, {})
        write_atomic(directory.publish_launch, launch.model_dump_json(by_alias=True, indent=1))
        number = tries.count + 1
        words = f"try {number} of {MAX_TRIES}: {why}"
        try:
            # Counted after Ray has it: a crash in between submits the same id again, which adopts it.
            self._executor.publish(launch, _name(job.id, number))
            tries.running_since = self._clock()
        except ClusterRefused as error:
            words += f"; Ray refused it: {error}"
            tries.not_before = self._clock() + pause_after(number)
        tries.count = number
        self._store.log_event(job.id, None, _TRY, words)
        log.info("job=%s %s", job.id, words)

    def _recall(self, job: JobRow) -> _Tries:
        """What was tried for a job; after a restart, from the decision log, and the last try may still run."""
        if job.id not in self._tries:
            kinds = [event.kind for event in self._store.events(job.id)]
            count = kinds.count(_TRY)
            self._tries[job.id] = _Tries(count, _GAVE_UP in kinds, self._clock() if count else None)
        return self._tries[job.id]


def _name(job_id: str, number: int) -> str:
    return f"{job_id}-p{number}"
