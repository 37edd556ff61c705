"""Carry over what MLflow had not taken when a job ended: ``python -m prunus.jobs.tracking.late_publish LAUNCH.json``.

Training never waits for MLflow, so a job may end while part of its spool is still on disk. This drains it, by the
same code; what was carried over already is not sent again. Started on the cluster by ``publishing.publisher``, or
by hand. Exit code 0: everything is in MLflow.
"""

import logging
import sys
from pathlib import Path

from prunus.configs import Launch
from prunus.configs.artifacts.layout import JobDirectory
from prunus.jobs.tracking.tracker import Tracker, identity

log = logging.getLogger(__name__)
_WAIT_S = 900.0


def publish(launch: Launch, wait_s: float = _WAIT_S) -> bool:
    """Drain the spool of an ended job; True if MLflow has everything.

    Args:
        launch: Any launch of the job; ``mlflow_uri`` is where MLflow is now.
        wait_s: Longest time to try, in seconds.
    """
    directory = JobDirectory(launch.job_dir)
    if not directory.spool.is_file():
        log.info("%s: nothing was logged", launch.job_id)
        return True
    if launch.mlflow_uri is None:
        log.error("%s: the launch names no MLflow; set mlflow_uri in it", launch.job_id)
        return False
    tracker = Tracker(directory.tracking, identity(launch), launch.mlflow_uri, launch.mlflow_experiment)
    done = tracker.close(wait_s)
    log.info("%s: %s", launch.job_id, "everything is in MLflow" if done else "MLflow has not taken everything")
    return done


def main(path: str) -> int:
    """Publish the job of a launch file; returns the process's exit code."""
    return 0 if publish(Launch.model_validate_json(Path(path).read_text(encoding="utf-8"))) else 1


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(main(sys.argv[1]))
