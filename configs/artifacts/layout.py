"""Where a job's files lie, and the manifest that proves them.

    <storage>/jobs/<job id>/
      attempts/<n>/            launch.json  progress.json  error-rank-<r>.json  outcome.json (last)  rank-<r>.log
      checkpoints/             step-<n>/ (committed whole)  latest
      tracking/                spool.jsonl (all that was logged)  cursor.json (how much MLflow has)  publish.json
      artifacts/               model/  masks/step-<n>/  figures/  job.json  manifest.json (last)

The manifest is written last: a directory without one is unfinished, whatever it holds.
"""

from pathlib import Path

JOB_RECORD = "job.json"

SPOOL = "spool.jsonl"

CURSOR = "cursor.json"


class JobDirectory:
    """Names of the files of one job. Pure paths: creates nothing.

    Args:
        root: The job's directory on storage that server and cluster share.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def tracking(self) -> Path:
        return self.root / "tracking"

    @property
    def spool(self) -> Path:
        """All that the job logs, one operation a line, in order."""
        return self.tracking / SPOOL

    @property
    def cursor(self) -> Path:
        """A ``SpoolCursor``: how much of the spool MLflow has."""
        return self.tracking / CURSOR

    @property
    def publish_launch(self) -> Path:
        """Input of ``jobs.tracking.late_publish``: the last attempt's launch, with the address that MLflow has now."""
        return self.tracking / "publish.json"

    @property
    def fence(self) -> Path:
        """Token of the newest attempt, a decimal number; an attempt with a smaller one must not write."""
        return self.root / "fence"

    def attempt(self, number: int) -> Path:
        return self.root / "attempts" / str(number)

    def launch(self, attempt: int) -> Path:
        return self.attempt(attempt) / "launch.json"

    def progress(self, attempt: int) -> Path:
        return self.attempt(attempt) / "progress.json"

    def outcome(self, attempt: int) -> Path:
        return self.attempt(attempt) / "outcome.json"

    def rank_error(self, attempt: int, rank: int) -> Path:
        return self.attempt(attempt) / f"error-rank-{rank}.json"

    def rank_log(self, attempt: int, rank: int) -> Path:
        return self.attempt(attempt) / f"rank-{rank}.log"
