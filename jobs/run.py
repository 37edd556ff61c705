"""Entry point of every rank: a launch in, a trained and published model out.

    open sources -> tokenizer -> data -> student, teacher -> objective -> engine -> shards -> method -> loop -> export
    -> publish

Called by Ray Train's workers (``cluster.worker``), or by hand: ``python -m jobs.run spec.yaml out/`` (under torchrun
for several ranks). Same
code, same result.
"""

import contextlib
import json
import logging
import math
import os
import platform
import random
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs import ConfigError, JobSpec, Launch, RankError, ResolvedSource, StopReason, __version__, load_file
from configs.artifacts import JobDirectory, write_atomic
from configs.methods import Dense, Locked
from configs.sources import source_kind
from jobs import export, figures, models
from jobs.data import TaskData, build_data
from jobs.enforcement import MaskedWeights
from jobs.engine import Engine, uses_autocast
from jobs.errors import JobError, StaleAttempt, StorageError, UserError
from jobs.loop import Training, train
from jobs.masks import Masks
from jobs.methods import METHODS, Start, build_method
from jobs.methods.locked import fit_mask
from jobs.models import Origin
from jobs.objective import Weights
from jobs.ranks import Ranks
from jobs.report import Reporter
from jobs.shards import shard_view
from jobs.tasks import TASKS, Task
from jobs.tracking import Tracker, identity

log = logging.getLogger(__name__)
_PUBLISH_WAIT_S = 120.0


@dataclass(frozen=True)
class Result:
    """What the last rank-0 line of a job says; copied into the attempt's outcome."""

    metrics: dict[str, float]
    run_id: str | None
    published: bool
    manifest_sha256: str
    bytes_on_disk: int


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
    if isinstance(error, OSError) and error.errno is not None:
        return StorageError(f"storage failed: {text}; free space or check that it is reachable")
    if isinstance(error, torch.distributed.DistBackendError) or "Connection closed by peer" in text:
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
    _seed(spec.train.seed + ranks.rank)
    reporter = Reporter(directory.progress(launch.attempt) if ranks.is_main else None, launch.attempt_id)
    reporter.phase("starting")
    tracker = _tracker(launch, directory) if ranks.is_main else None
    try:
        return _train_and_publish(launch, directory, ranks, reporter, tracker)
    except Exception as error:
        if tracker is not None and not isinstance(error, StaleAttempt):
            tracker.tags({"prunus.error": str(error)[:4000]})
            tracker.status("FAILED")
            tracker.close(wait_s=10.0)
        raise


def _train_and_publish(
    launch: Launch, directory: JobDirectory, ranks: Ranks, reporter: Reporter, tracker: Tracker | None
) -> Result | None:
    spec = launch.spec
    origins = ranks.main_first(lambda: _open_sources(launch, directory))
    tokenizer = models.load_tokenizer(origins["model"])
    reporter.phase("data")
    data = build_data(spec, tokenizer, Path(launch.cache_dir), ranks)
    task = TASKS[spec.task.name](data.labels)
    reporter.phase("starting")
    engine, weights, start = _build(spec, origins, tokenizer, task, data, ranks)
    run = Training(
        spec=spec,
        num_steps=start.num_steps,
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
    )
    if tracker is not None:
        tracker.params(_facts(launch, run, origins))
    metrics = train(run)
    reporter.phase("saving")
    _check_newest(directory, launch)
    return _publish(run, launch, directory, tokenizer, origins, metrics)


def _open_sources(launch: Launch, directory: JobDirectory) -> dict[str, Origin]:
    return {
        role: models.open_source(source, directory.root / "downloads" / role) for role, source in launch.sources.items()
    }


def _build(
    spec: JobSpec,
    origins: dict[str, Origin],
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    data: TaskData,
    ranks: Ranks,
) -> tuple[Engine, MaskedWeights | None, Start]:
    """Student, teacher, objective, engine, shards: what the loop works on."""
    _seed(spec.train.seed)  # the same new head on every rank
    student = models.load_model(task.auto_class, origins["model"], spec.model, task.model_overrides())
    if spec.engine.activation_checkpointing:
        student.gradient_checkpointing_enable({"use_reentrant": False})
    teacher = _teacher(spec, origins, tokenizer, task, ranks)
    prunable: dict[str, torch.nn.Parameter] = {}
    if METHODS[spec.method.name].prunes:
        assert not isinstance(spec.method, Dense)
        prunable = models.prunable_parameters(student, spec.method.prunable)
    shapes = {name: tuple(weight.shape) for name, weight in prunable.items()}
    given = _given_mask(spec, origins, shapes)
    distillation = spec.distillation
    mixture = Weights(
        task=distillation.task_weight if distillation else 1.0,
        teacher=distillation.teacher_weight if distillation else 0.0,
        temperature=distillation.temperature if distillation else 1.0,
        predicted_only=distillation is not None and distillation.tokens == "predicted",
        chunk_rows=distillation.chunk_rows if distillation else 512,
    )
    engine = Engine(task.objective_class(student, teacher, mixture, uses_autocast(spec)), spec, ranks)
    _seed(spec.train.seed + ranks.rank)
    weights = None
    if prunable:
        shards = shard_view(prunable, engine.torch_optimizer, engine.engine_optimizer, ranks.rank)
        weights = MaskedWeights(shards, engine.engine_optimizer, ranks)
    num_steps = spec.train.num_steps or _steps_of_epochs(spec, data)
    # A method that prunes nothing never touches its weights.
    start = Start(weights or MaskedWeights([], engine.engine_optimizer, ranks), num_steps, ranks, given)
    return engine, weights, start


def _steps_of_epochs(spec: JobSpec, data: TaskData) -> int:
    assert data.num_train_sequences is not None and spec.train.num_epochs is not None, "checked by JobSpec"
    return max(1, math.ceil(data.num_train_sequences * spec.train.num_epochs / spec.train.batch_size))


def _teacher(
    spec: JobSpec, origins: dict[str, Origin], tokenizer: PreTrainedTokenizerBase, task: Task, ranks: Ranks
) -> PreTrainedModel | None:
    if spec.distillation is None:
        return None
    origin = origins["teacher"]
    models.check_same_tokenizer(tokenizer, models.load_tokenizer(origin), origin.reference)
    teacher = models.load_model(task.auto_class, origin, None, {})
    models.check_same_labels(task.labels, teacher, origin.reference)
    dtype = torch.bfloat16 if spec.engine.precision == "bf16" and not uses_autocast(spec) else torch.float32
    return teacher.to(ranks.device, dtype).eval().requires_grad_(False)


def _given_mask(spec: JobSpec, origins: dict[str, Origin], shapes: dict[str, tuple[int, ...]]) -> Masks | None:
    if not isinstance(spec.method, Locked) or spec.method.mask == "zeros":
        return None
    role = "mask" if "mask" in origins else "model"
    if role == "model" and origins["model"].mask_directory is None:
        return None
    return fit_mask(models.load_mask(origins[role]), shapes, origins[role].reference)


def _publish(
    run: Training,
    launch: Launch,
    directory: JobDirectory,
    tokenizer: PreTrainedTokenizerBase,
    origins: dict[str, Origin],
    metrics: dict[str, float],
) -> Result | None:
    """Write artifacts and hand them to MLflow (collective; rank 0 writes)."""
    root, spec = directory.artifacts, launch.spec
    lineage = {role: origin.lineage for role, origin in origins.items()}
    masks = run.method.masks()
    card = export.model_card(launch, lineage, metrics, spec.model.source)
    measured = export.write_model(run.engine, tokenizer, masks, root / "model", card)
    if run.tracker is None:
        run.ranks.barrier()
        return None
    metrics = {**metrics, **measured}
    export.write_mask(masks, root, spec.method.name, run.num_steps)
    _draw(run, root / "figures")
    manifest_sha256 = export.write_manifest(root, launch, lineage)
    run.reporter.phase("publishing")
    tracker = run.tracker
    tracker.metrics(run.num_steps, measured)
    tracker.artifacts(root, "")
    if spec.output.register_as:
        tracker.register(spec.output.register_as, spec.output.alias, "model")
    tracker.status("FINISHED")
    published = tracker.close(_PUBLISH_WAIT_S if launch.mlflow_uri else 0.0)
    run.ranks.barrier()
    size = sum(path.stat().st_size for path in (root / "model").rglob("*") if path.is_file())
    return Result(metrics, tracker.run_id, published, manifest_sha256, size)


def _draw(run: Training, directory: Path) -> None:
    if run.weights is None:
        return
    figures.sparsity_per_layer(run.weights.sparsity_by_weight(), directory / "sparsity_per_layer.png")
    if run.history:
        target = [(step, run.method.target_sparsity(step)) for step in range(run.num_steps + 1)]
        figures.sparsity_schedule(run.history, target, directory / "sparsity_schedule.png")
        figures.iou_over_updates(run.history, directory / "mask_iou.png")


def _tracker(launch: Launch, directory: JobDirectory) -> Tracker:
    tracker = Tracker(directory.tracking, identity(launch), launch.mlflow_uri, launch.mlflow_experiment)
    tracker.tags({**{f"label.{k}": v for k, v in launch.spec.labels.items()}, "prunus.attempt": str(launch.attempt)})
    tracker.status("RUNNING")
    return tracker


def _facts(launch: Launch, run: Training, origins: dict[str, Origin]) -> dict[str, Any]:
    """Parameters of the MLflow run: the resolved spec, flat, and what surrounds it."""
    facts: dict[str, Any] = {}

    def flatten(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                flatten(item, f"{path}.{key}" if path else str(key))
        else:
            facts[path] = json.dumps(value) if isinstance(value, list) else value

    flatten(launch.spec.model_dump(mode="json", by_alias=True), "")
    facts |= {f"lineage.{role}": origin.lineage for role, origin in origins.items()}
    facts |= {"num_steps": run.num_steps, "data.digest": run.data.digest, "prunable_weights": 0}
    if run.weights is not None:
        facts["prunable_weights"] = run.weights.num_weights
    facts |= {"env.prunus": __version__, "env.python": platform.python_version(), "env.torch": torch.__version__}
    facts |= {
        "env.transformers": transformers.__version__,
        "env.device": str(run.ranks.device),
        "env.git": _git_revision(),
    }
    return facts


def _git_revision() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "none"  # noqa: S603
    return "none"


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


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


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
        launch = _launch_by_hand(campaign.jobs[0], Path(arguments[1]).resolve())
        result = run_rank(launch)
    except (ConfigError, JobError) as error:
        sys.stderr.write(f"prunus: {error}\n")
        return 1
    if result is not None:
        sys.stdout.write(json.dumps(result.metrics | {"bytes_on_disk": result.bytes_on_disk}, indent=1) + "\n")
    return 0


def _launch_by_hand(spec: JobSpec, out: Path) -> Launch:
    sources = {}
    for role, reference in spec.sources.items():
        kind = source_kind(reference)
        if kind not in {"directory", "hub"}:
            raise ConfigError(f"{role}: {reference} needs a server", remedy="by hand, give a directory or a hub id")
        sources[role] = ResolvedSource(
            reference=reference, kind="directory" if kind == "directory" else "hub", location=reference
        )
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
