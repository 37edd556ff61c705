"""One attempt of a job as a rank has it, whatever the kind of job."""

from dataclasses import dataclass

from prunus.configs import Launch
from prunus.configs.artifacts.layout import JobDirectory
from prunus.jobs.errors import StaleAttempt
from prunus.jobs.ranks import Ranks
from prunus.jobs.tracking.heartbeat import Reporter
from prunus.jobs.tracking.tracker import Tracker


@dataclass(frozen=True)
class Attempt:
    """What every kind of job works with.

    Attributes:
        launch: What the server says of this attempt.
        directory: Where the job's files lie.
        ranks: The gang.
        reporter: Tells the server how far it is.
        tracker: Tells MLflow; on rank 0 only.
    """

    launch: Launch
    directory: JobDirectory
    ranks: Ranks
    reporter: Reporter
    tracker: Tracker | None

    def guard(self) -> None:
        """Call before each write.

        Raises:
            StaleAttempt: As of :func:`refuse_stale`.
        """
        refuse_stale(self.launch, self.directory)


def refuse_stale(launch: Launch, directory: JobDirectory) -> None:
    """Refuse to go on once a newer attempt has been fenced in.

    Raises:
        StaleAttempt: There is one.
    """
    try:
        newest = int(directory.fence.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return
    if newest > int(launch.token):
        raise StaleAttempt(
            f"attempt {launch.attempt_id} (token {launch.token}) is superseded by token {newest}; it stops"
        )
