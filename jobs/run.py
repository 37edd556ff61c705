"""Entry point of every rank: a launch in, a trained and published model out (or a comparison: ``comparison_job``).

    open sources -> tokenizer or feature extractor -> data -> student, teacher -> objective -> engine -> shards
    -> method -> loop -> export -> publish

Called by Ray Train's workers (``cluster.worker``), or by hand: ``python -m jobs.run spec.yaml out/`` (under torchrun
for several ranks). Same code, same result.
"""

import contextlib
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import transformers

from configs import (
    AnySpec,
    ComparisonSpec,
    ConfigError,
    JobSpec,
    Launch,
    RankError,
    ResolvedSource,
    StopReason,
    __version__,
    load_file,
)
from configs.artifacts import JobDirectory, write_atomic
from configs.sources import source_kind
from jobs import models
from jobs.build import build_engine, open_sources, seed_all
from jobs.checkpoint import is_storage_failure
from jobs.comparison_job import compare_and_publish
from jobs.data import build_data
from jobs.errors import JobError, StaleAttempt, StorageError, UserError
from jobs.loop import Training, train
from jobs.methods import build_method
from jobs.ranks import Ranks
from jobs.report import Reporter
from jobs.results import Result, finish_job, run_facts
from jobs.tasks import TASKS
from jobs.tracking import Tracker, identity

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


def classify(error: Exception) -> JobError:
    """Say of any exception what it means for the job."""
    if isinstance(error, JobError):
        return error
    if isinstance(error, ConfigError):
        return UserError(str(error))
    text = f"{type(error).__name__}: {str(error).strip()[:800]}"
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator: can't allocate" in text:
        found = JobError(
            f"out of memory ({text}); lower train.micro_batch_size or task.data.sequence_length, raise "
            "engine.strategy to a higher ZeRO stage, or set engine.activation_checkpointing"
        )
        found.reason = StopReason.OUT_OF_MEMORY
        return found
    if getattr(error, "errno", None) is not None or (not isinstance(error, OSError) and is_storage_failure(error)):
        return StorageError(f"storage failed: {text}; free space or check that it is reachable")
    if isinstance(error, torch.distributed.DistError) or "gloo/transport" in text:  # closed, reset, timed out
        found = JobError(f"another rank is gone ({text})")
        found.reason, found.retryable = StopReason.WORKER_LOST, True
        return found
    return JobError(f"unexpected {text}; this is a defect of prunus or of a library: see the rank's log")


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
    inputs = models.load_inputs(spec.task.name, origins["model"])
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
    logging.getLogger("jobs").setLevel(logging.INFO)
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch's, once per collective, about its own callers
    transformers.utils.logging.disable_progress_bar()


def _by_hand(arguments: list[str]) -> int:
    """``python -m jobs.run spec.yaml out/ [a.b=c ...]``: one job, no service, no Ray; ``from:`` is a directory or a
    hub id.
    """
    if len(arguments) < 2:
        sys.stderr.write("usage: python -m jobs.run SPEC.yaml OUT_DIR [a.b=value ...]\n")
        return 2
    try:
        campaign = load_file(Path(arguments[0]), arguments[2:], base=Path.cwd())
        if len(campaign.jobs) != 1:
            raise ConfigError(
                f"{arguments[0]} has {len(campaign.jobs)} jobs", remedy="by hand one job is run at a time"
            )
        launch = launch_by_hand(campaign.jobs[0], Path(arguments[1]).resolve())
        result = run_rank(launch)
    except (ConfigError, JobError) as error:
        sys.stderr.write(f"prunus: {error}\n")
        return 1
    if result is not None:
        sys.stdout.write(json.dumps(result.metrics | {"bytes_on_disk": result.bytes_on_disk}, indent=1) + "\n")
    return 0


def source_by_hand(role: str, reference: str) -> ResolvedSource:
    """Say where a source is without a server: a directory, or the hub.

    Raises:
        ConfigError: Only a server can resolve it.
    """
    kind = source_kind(reference)
    if kind not in {"directory", "hub"}:
        raise ConfigError(f"{role}: {reference} needs a server", remedy="by hand, give a directory or a hub id")
    return ResolvedSource(reference=reference, kind="directory" if kind == "directory" else "hub", location=reference)


def launch_by_hand(spec: AnySpec, out: Path, resolve: Callable[[str, str], ResolvedSource] = source_by_hand) -> Launch:
    """Say where a job without a server finds its sources and leaves its files.

    Args:
        resolve: Takes role and reference of a source.

    Raises:
        ConfigError: A source that only a server can resolve.
    """
    sources = {role: resolve(role, reference) for role, reference in spec.sources.items()}
    return Launch(
        prunus_version=__version__,
        job_id=spec.name,
        job_name=spec.name,
        attempt=1,
        attempt_id=f"{spec.name}-a1",
        token="1",  # noqa: S106 - a fencing token, no secret
        job_dir=str(out),
        cache_dir=str(out / "cache"),
        spec=spec,
        sources=sources,
        mlflow_uri=os.environ.get("MLFLOW_TRACKING_URI"),
    )


if __name__ == "__main__":
    log = logging.getLogger("jobs.run")
    sys.exit(_by_hand(sys.argv[1:]))
