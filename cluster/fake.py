"""A cluster in memory, for tests: it ships with the seam so that every test of the scheduler means the same by "Ray".

The test plays the cluster: ``beat`` is rank 0's progress, ``finish`` the driver's outcome, ``say`` what Ray reports.
"""

import json
import threading

from prunus.cluster.errors import ClusterRefused, ClusterUnreachable
from prunus.cluster.executor import Capacity, Node, Poll, RayStatus
from prunus.configs import Launch, Outcome, Progress, RankError, SpoolCursor, StopReason
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import JobDirectory
from prunus.configs.artifacts.manifest import MANIFEST, Manifest, build_entries, sha256_file


class FakeExecutor:
    """Executor without processes.

    Args:
        nodes: What the cluster offers.
        automatic: Every attempt succeeds as soon as it is submitted, with a small artifact.
    """

    def __init__(self, nodes: tuple[Node, ...] = (Node("node-1", 2.0, 0.0),), *, automatic: bool = False) -> None:
        self.nodes = nodes
        self.automatic = automatic
        self.reachable = True
        self.refusal = ""
        """If set, ``submit`` is refused with it."""
        self.launches: dict[str, Launch] = {}
        """Every attempt that was submitted, by id."""
        self.num_submits: dict[str, int] = {}
        """How often ``submit`` was called, adoptions included."""
        self.publishes: dict[str, Launch] = {}
        """Every try to carry a spool over, by submission id."""
        self.stops: list[str] = []
        """Attempts that were asked to stop, in order, repeats included."""
        self.logs: dict[str, str] = {}
        """Driver logs by attempt."""
        self._polls: dict[str, Poll] = {}
        self._lock = threading.Lock()

    def submit(self, launch: Launch) -> None:
        self._answer()
        if self.refusal:
            raise ClusterRefused(self.refusal)
        assert JobDirectory(launch.job_dir).launch(launch.attempt).is_file(), (
            "launch.json must be there before Ray hears"
        )
        with self._lock:
            self.num_submits[launch.attempt_id] = self.num_submits.get(launch.attempt_id, 0) + 1
            if launch.attempt_id in self.launches:
                return
            self.launches[launch.attempt_id] = launch
            self._polls[launch.attempt_id] = Poll("pending")
        if self.automatic:
            self.leave_artifact(launch.attempt_id, {"model/config.json": "{}"})
            self.finish(launch.attempt_id)

    def publish(self, launch: Launch, submission_id: str) -> None:
        self._answer()
        if self.refusal:
            raise ClusterRefused(self.refusal)
        assert JobDirectory(launch.job_dir).publish_launch.is_file(), "publish.json must be there before Ray hears"
        with self._lock:
            self.num_submits[submission_id] = self.num_submits.get(submission_id, 0) + 1
            if submission_id in self.publishes:
                return
            self.publishes[submission_id] = launch
            self._polls[submission_id] = Poll("pending")
        if self.automatic:
            self.carry_over(submission_id)

    def poll(self, attempt_id: str) -> Poll:
        self._answer()
        return self._polls.get(attempt_id, Poll("unknown"))

    def stop(self, attempt_id: str) -> None:
        self._answer()
        self.stops.append(attempt_id)

    def driver_log(self, attempt_id: str) -> str:
        self._answer()
        return self.logs.get(attempt_id, "")

    def capacity(self) -> Capacity:
        self._answer()
        return Capacity(self.nodes)

    def say(self, attempt_id: str, status: RayStatus, message: str = "") -> None:
        """Set what Ray reports of an attempt."""
        self._polls[attempt_id] = Poll(status, message)

    def forget(self) -> None:
        """Ray's head restarts: it knows no submission any more."""
        self._polls.clear()

    def beat(self, attempt_id: str, time: float, step: int = 0, phase: str = "training") -> None:
        """Rank 0 writes its progress at ``time`` (Unix seconds); Ray says running."""
        launch = self.launches[attempt_id]
        progress = Progress(attempt_id=attempt_id, time=time, phase=phase, step=step)
        write_atomic(JobDirectory(launch.job_dir).progress(launch.attempt), progress.model_dump_json())
        self.say(attempt_id, "running")

    def fail_rank(self, attempt_id: str, rank: int, reason: StopReason, message: str, time: float) -> None:
        """A rank writes why it dies."""
        launch = self.launches[attempt_id]
        error = RankError(rank=rank, reason=reason, message=message, time=time)
        write_atomic(JobDirectory(launch.job_dir).rank_error(launch.attempt, rank), error.model_dump_json())

    def finish(
        self,
        attempt_id: str,
        reason: StopReason = StopReason.SUCCEEDED,
        message: str = "",
        *,
        token: str | None = None,
        metrics: dict[str, float] | None = None,
        run_id: str | None = None,
        published: bool = False,
    ) -> None:
        """The driver writes its outcome; ``token`` other than the launch's makes a stale one, ``published`` says that
        MLflow has all of the job."""
        launch = self.launches[attempt_id]
        directory = JobDirectory(launch.job_dir)
        manifest = directory.artifacts / MANIFEST
        outcome = Outcome(
            attempt_id=attempt_id,
            token=launch.token if token is None else token,
            reason=reason,
            message=message,
            metrics=metrics or {},
            run_id=run_id or f"run-of-{launch.job_id}",
            published=published,
            manifest_sha256=sha256_file(manifest) if manifest.is_file() else None,
        )
        write_atomic(directory.outcome(launch.attempt), outcome.model_dump_json())
        self.say(attempt_id, "succeeded" if reason is StopReason.SUCCEEDED else "failed")

    def carry_over(self, submission_id: str, run_id: str = "run-1") -> None:
        """A try to carry a spool over succeeds: MLflow has all of it."""
        directory = JobDirectory(self.publishes[submission_id].job_dir)
        cursor = SpoolCursor(offset=directory.spool.stat().st_size, run_id=run_id)
        write_atomic(directory.cursor, cursor.model_dump_json())
        self.say(submission_id, "succeeded")

    def leave_artifact(self, attempt_id: str, files: dict[str, str]) -> None:
        """Write files and their manifest as a job's artifact."""
        launch = self.launches[attempt_id]
        root = JobDirectory(launch.job_dir).artifacts
        for name, text in files.items():
            write_atomic(root / name, text)
        manifest = Manifest(
            job_id=launch.job_id, job_name=launch.job_name, attempt_id=attempt_id, files=build_entries(root)
        )
        write_atomic(root / MANIFEST, json.dumps(manifest.model_dump(), indent=1))

    def _answer(self) -> None:
        if not self.reachable:
            raise ClusterUnreachable("Ray's dashboard does not answer")
