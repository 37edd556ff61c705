"""Entry point of every rank: a launch in, a trained and published model out, or whatever its kind of job leaves.

Called by Ray Train's workers (``cluster.worker``), or by hand: ``python -m prunus.jobs``. Same code, same result.
"""

import contextlib
import logging
import os
import time
import warnings
from pathlib import Path

import transformers

from prunus.configs import (
    Launch,
    RankError,
)
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import JobDirectory
from prunus.jobs.attempt import Attempt, refuse_stale
from prunus.jobs.errors import StaleAttempt, UserError
from prunus.jobs.failures import classify
from prunus.jobs.kinds import KINDS
from prunus.jobs.ranks import Ranks
from prunus.jobs.results.finish import Result
from prunus.jobs.tracking.heartbeat import Reporter
from prunus.jobs.tracking.tracker import Tracker, identity

log = logging.getLogger(__name__)


def run_rank(launch: Launch) -> Result | None:
    """Run one rank of an attempt; returns the result on rank 0.

    Raises:
        JobError: With the reason and a message for the user; ``error-rank-N.json`` is written before.
    """
    directory = JobDirectory(launch.job_dir)
    rank = int(os.environ.get("RANK", "0"))
    _log_to(directory.rank_log(launch.attempt, rank), launch, rank)
    try:
        return _run(launch, directory)
    except Exception as error:
        problem = classify(error)
        log.error("%s", problem, exc_info=error)
        record = RankError(
            rank=rank, reason=problem.reason, message=str(problem), retryable=problem.retryable, time=time.time()
        )
        with contextlib.suppress(OSError):
            write_atomic(directory.rank_error(launch.attempt, rank), record.model_dump_json())
        raise problem from error


def _run(launch: Launch, directory: JobDirectory) -> Result | None:
    spec = launch.spec
    ranks = Ranks.join()
    if ranks.world_size != spec.resources.num_ranks:
        raise UserError(
            f"{ranks.world_size} ranks were started, resources.num_ranks is {spec.resources.num_ranks}; "
            "start as many as the spec says"
        )
    refuse_stale(launch, directory)
    reporter = Reporter(directory.progress(launch.attempt) if ranks.is_main else None, launch.attempt_id)
    reporter.phase("starting")
    tracker = _tracker(launch, directory) if ranks.is_main else None
    try:
        return KINDS[type(spec)](Attempt(launch, directory, ranks, reporter, tracker), spec)
    except Exception as error:
        if tracker is not None and not isinstance(error, StaleAttempt):
            tracker.tags({"prunus.error": str(error)[:4000]})
            tracker.status("FAILED")
            tracker.close(wait_s=10.0)
        raise
    finally:
        reporter.close()


def _tracker(launch: Launch, directory: JobDirectory) -> Tracker:
    tracker = Tracker(directory.tracking, identity(launch), launch.mlflow_uri, launch.mlflow_experiment)
    tracker.tags({**{f"label.{k}": v for k, v in launch.spec.labels.items()}, "prunus.attempt": str(launch.attempt)})
    tracker.status("RUNNING")
    return tracker


def _log_to(path: Path, launch: Launch, rank: int) -> None:
    """Every line of this process carries job, attempt and rank, in the attempt's directory and on stderr."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"%(asctime)s %(levelname).1s {launch.job_name} {launch.attempt_id} rank {rank} %(name)s: %(message)s"
    handlers: list[logging.Handler] = [logging.FileHandler(path, encoding="utf-8"), logging.StreamHandler()]
    logging.basicConfig(level=logging.WARNING, format=text, handlers=handlers, force=True)
    logging.getLogger("prunus").setLevel(logging.INFO)
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch's, once per collective, about its own callers
    transformers.utils.logging.disable_progress_bar()
