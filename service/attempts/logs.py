"""Logs of a job's attempts by byte offset: a rank's file, or the driver's output.

``rank`` None is rank 0, or the driver where an attempt ended before any rank wrote; -1 is the driver always.
"""

from prunus.cluster.errors import ClusterError
from prunus.cluster.executor import Executor
from prunus.configs.artifacts.layout import JobDirectory
from prunus.service.attempts.evidence import DRIVER_LOG, MAX_CHUNK_BYTES, cut_log, read_kept_driver_log, read_log
from prunus.service.errors import NotFound, Unreachable
from prunus.service.settings import Settings
from prunus.service.store.rows import AttemptRow, JobRow
from prunus.service.store.store import Store
from prunus.service.wire import DRIVER


class JobLogs:
    """Reads logs of every attempt, live or over."""

    def __init__(self, store: Store, executor: Executor, settings: Settings) -> None:
        self._store = store
        self._executor = executor
        self._settings = settings

    def read(self, job: JobRow, rank: int | None, number: int | None, offset: int) -> tuple[bytes, int, bool]:
        """Read a piece of at most 1 MiB.

        Args:
            number: Attempt; None for the newest.
            offset: Bytes to skip.

        Returns:
            The bytes, the next offset, and whether that is the end for good.

        Raises:
            NotFound: The attempt or the rank does not exist.
            Unreachable: The driver's live output was asked for and Ray does not answer.
        """
        if rank is not None and rank >= job.spec.resources.num_ranks:
            raise NotFound(
                f"{job.name} has {job.spec.resources.num_ranks} ranks, counted from 0; there is no rank {rank}"
            )
        attempt = self._attempt(job, number)
        if attempt is None:
            return b"", 0, job.state.is_terminal
        directory = JobDirectory(self._settings.job_directory(job.id))
        ended = attempt.finished_at is not None
        path = directory.rank_log(attempt.number, rank or 0)
        if rank is None and ended and not path.exists():
            rank = DRIVER
        if rank != DRIVER:
            return read_log(path, offset, ended=ended)
        if ended:
            return read_kept_driver_log(directory.attempt(attempt.number) / DRIVER_LOG, offset)
        return self._live_driver(attempt, offset)

    def _attempt(self, job: JobRow, number: int | None) -> AttemptRow | None:
        attempts = self._store.attempts([job.id])[job.id]
        if number is None:
            return attempts[-1] if attempts else None
        for attempt in attempts:
            if attempt.number == number:
                return attempt
        raise NotFound(f"{job.name} has {len(attempts)} attempts, counted from 1; there is no attempt {number}")

    def _live_driver(self, attempt: AttemptRow, offset: int) -> tuple[bytes, int, bool]:
        try:
            data = self._executor.driver_log(attempt.id).encode()
        except ClusterError as error:
            raise Unreachable(f"the driver's output comes from Ray, which does not answer: {error}") from error
        offset = min(offset, len(data))
        chunk = data[offset : offset + MAX_CHUNK_BYTES]
        return cut_log(chunk, offset, at_end=offset + len(chunk) >= len(data), ended=False)
