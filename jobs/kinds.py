"""Kinds of jobs: which code runs which class of spec. Nothing else in this room asks for the kind.

A job that trains goes this way:

    open sources -> tokenizer or feature extractor -> data -> student, teacher -> method -> objective -> engine
    -> shards -> loop -> export -> publish
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prunus.configs import ComparisonSpec, JobSpec
from prunus.configs.specs.base import JobBase
from prunus.jobs.attempt import Attempt
from prunus.jobs.comparison.job import compare_and_publish
from prunus.jobs.data.build import build_data
from prunus.jobs.models.inputs import load_inputs
from prunus.jobs.results.facts import run_facts
from prunus.jobs.results.finish import Result, finish_job
from prunus.jobs.tasks import TASKS
from prunus.jobs.training.assemble import build_engine, open_sources, seed_all
from prunus.jobs.training.loop import train
from prunus.jobs.training.training import Training


def train_and_publish(attempt: Attempt, spec: JobSpec) -> Result | None:
    """Train, write the artifacts and hand them to MLflow; returns the result on rank 0."""
    launch, directory, ranks = attempt.launch, attempt.directory, attempt.ranks
    seed_all(spec.train.seed + ranks.rank)
    origins = ranks.main_first(lambda: open_sources(launch, directory))
    inputs = load_inputs(spec.task.name, origins["model"])
    attempt.reporter.phase("data")
    data = build_data(spec, inputs, Path(launch.cache_dir), ranks)
    task = TASKS[spec.task.name](spec.task, data)
    attempt.reporter.phase("starting")
    engine, weights, method, num_steps = build_engine(spec, origins, inputs, task, data, ranks)
    run = Training(
        spec=spec,
        num_steps=num_steps,
        lineage={role: origin.lineage for role, origin in origins.items()},
        task=task,
        data=data,
        engine=engine,
        weights=weights,
        method=method,
        ranks=ranks,
        checkpoints=directory.checkpoints,
        attempt_id=launch.attempt_id,
        tracker=attempt.tracker,
        reporter=attempt.reporter,
        guard=attempt.guard,
    )
    if attempt.tracker is not None:
        attempt.tracker.params(run_facts(run))
        attempt.tracker.metrics(0, dict(data.facts))
    metrics = train(run)
    attempt.reporter.phase("saving")
    attempt.guard()
    return finish_job(run, launch, directory, metrics)


KINDS: dict[type[JobBase], Callable[[Attempt, Any], Result | None]] = {
    JobSpec: train_and_publish,
    ComparisonSpec: compare_and_publish,
}
