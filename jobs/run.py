"""Entry point of every rank: a launch in, a trained and published model out (or a comparison: ``comparison_job``).

    open sources -> tokenizer or feature extractor -> data -> student, teacher -> objective -> engine -> shards
    -> method -> loop -> export -> publish

Called by Ray Train's workers (``cluster.worker``), or by hand: ``python -m prunus.jobs``. Same code, same result.
"""

import contextlib
import logging
import os
import time
import warnings
from functools import partial
from pathlib import Path

import transformers

from prunus.configs import (
    ComparisonSpec,
    JobSpec,
    Launch,
    RankError,
)
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import JobDirectory
from prunus.jobs.comparison.job import compare_and_publish
from prunus.jobs.data.build import build_data
from prunus.jobs.errors import StaleAttempt, UserError
from prunus.jobs.failures import classify
from prunus.jobs.methods import build_method
from prunus.jobs.models.inputs import load_inputs
from prunus.jobs.ranks import Ranks
from prunus.jobs.results.facts import run_facts
from prunus.jobs.results.finish import Result, finish_job
from prunus.jobs.tasks import TASKS
from prunus.jobs.tracking.heartbeat import Reporter
from prunus.jobs.tracking.tracker import Tracker, identity
from prunus.jobs.training.assemble import build_engine, open_sources, seed_all
from prunus.jobs.training.loop import train
from prunus.jobs.training.training import Training

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
    _check_newest(directory, launch)
    reporter = Reporter(directory.progress(launch.attempt) if ranks.is_main else None, launch.attempt_id)
    reporter.phase("starting")
    tracker = _tracker(launch, directory) if ranks.is_main else None
    guard = partial(_check_newest, directory, launch)
    try:
        if isinstance(spec, ComparisonSpec):
            return compare_and_publish(launch, spec, directory, reporter, tracker, guard)
        return _train_and_publish(launch, spec, directory, ranks, reporter, tracker)
    except Exception as error:
        if tracker is not None and not isinstance(error, StaleAttempt):
            tracker.tags({"prunus.error": str(error)[:4000]})
            tracker.status("FAILED")
            tracker.close(wait_s=10.0)
        raise
    finally:
        reporter.close()


def _train_and_publish(
    launch: Launch, spec: JobSpec, directory: JobDirectory, ranks: Ranks, reporter: Reporter, tracker: Tracker | None
) -> Result | None:
    seed_all(spec.train.seed + ranks.rank)
    origins = ranks.main_first(lambda: open_sources(launch, directory))
    inputs = load_inputs(spec.task.name, origins["model"])
    reporter.phase("data")
    data = build_data(spec, inputs, Path(launch.cache_dir), ranks)
    task = TASKS[spec.task.name](spec.task, data)
    reporter.phase("starting")
    engine, weights, start = build_engine(spec, origins, inputs, task, data, ranks)
    run = Training(
        spec=spec,
        num_steps=start.num_steps,
        lineage={role: origin.lineage for role, origin in origins.items()},
        task=task,
        data=data,
        engine=engine,
        weights=weights,
        method=build_method(spec.method, start),
        ranks=ranks,
        checkpoints=directory.checkpoints,
        attempt_id=launch.attempt_id,
        tracker=tracker,
        reporter=reporter,
        guard=partial(_check_newest, directory, launch),
    )
    if tracker is not None:
        tracker.params(run_facts(run))
        tracker.metrics(0, dict(data.facts))
    metrics = train(run)
    reporter.phase("saving")
    _check_newest(directory, launch)
    return finish_job(run, launch, directory, metrics)


def _tracker(launch: Launch, directory: JobDirectory) -> Tracker:
    tracker = Tracker(directory.tracking, identity(launch), launch.mlflow_uri, launch.mlflow_experiment)
    tracker.tags({**{f"label.{k}": v for k, v in launch.spec.labels.items()}, "prunus.attempt": str(launch.attempt)})
    tracker.status("RUNNING")
    return tracker


def _check_newest(directory: JobDirectory, launch: Launch) -> None:
    """Refuse to write once a newer attempt has been fenced in."""
    try:
        newest = int(directory.fence.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return
    if newest > int(launch.token):
        raise StaleAttempt(
            f"attempt {launch.attempt_id} (token {launch.token}) is superseded by token {newest}; it stops"
        )


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
