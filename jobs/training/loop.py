"""The training loop. Read this first; the hooks of a method are drawn in ``methods/base``."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from prunus.configs.schedules import lr_factor
from prunus.configs.specs.job import JobSpec
from prunus.jobs.data.pipeline.batches import TaskData
from prunus.jobs.engine.engine import Engine
from prunus.jobs.errors import UserError
from prunus.jobs.methods import Method
from prunus.jobs.ranks import Ranks
from prunus.jobs.results.figures import History
from prunus.jobs.sparsity.masked_weights import MaskedWeights
from prunus.jobs.tasks import Task
from prunus.jobs.tasks.base import to_device
from prunus.jobs.tracking.heartbeat import Reporter
from prunus.jobs.tracking.tracker import Tracker
from prunus.jobs.training import checkpoint

log = logging.getLogger(__name__)
_OPTIMIZER = {"seed", "lr", "weight_decay", "betas", "eps", "max_grad_norm"}
"""Parts of ``train`` that a resumed job must share with the one that wrote the checkpoint."""


@dataclass
class Training:
    """Everything that one job trains with.

    Attributes:
        num_steps: Optimizer steps in all.
        lineage: What each source (model, teacher, mask) was, with the digest of its manifest.
        checkpoints: Directory of the checkpoints.
        attempt_id: Id of this attempt, for files that lie aside.
        tracker: On rank 0 only.
        guard: Raises StaleAttempt once a newer attempt has taken the job over; called before each write.
    """

    spec: JobSpec
    num_steps: int
    lineage: dict[str, str]
    task: Task
    data: TaskData
    engine: Engine
    weights: MaskedWeights | None
    method: Method[Any]
    ranks: Ranks
    checkpoints: Path
    attempt_id: str
    tracker: Tracker | None
    reporter: Reporter
    guard: Callable[[], None]
    history: History = field(default_factory=list)

    @property
    def facts(self) -> dict[str, Any]:
        """What a checkpoint and its job must agree on."""
        spec = self.spec
        return {
            "num_ranks": self.ranks.world_size,
            "strategy": spec.engine.strategy,
            "precision": spec.engine.precision,
            "num_steps": self.num_steps,
            "batch_size": spec.train.batch_size,
            "data": self.data.digest,
            "method": spec.method.model_dump(mode="json"),
            "sources": self.lineage,
            "model": spec.model.model_dump(mode="json", by_alias=True),
            "distillation": spec.distillation.model_dump(mode="json") if spec.distillation else None,
            "optimizer": spec.train.model_dump(mode="json", include=_OPTIMIZER),
        }


def train(run: Training) -> dict[str, float]:
    """Train from the newest checkpoint, or from the start, to the end; returns the final metrics (equal on all
    ranks).
    """
    step = _start(run)
    window = _Window()
    metrics: dict[str, float] = {}
    while step < run.num_steps:
        _optimizer_step(run, step, window)
        step += 1
        run.reporter.step(step, run.num_steps, {})
        _update_masks(run, step)
        if step % run.spec.train.log_every == 0 or step == run.num_steps:
            _log(run, step, window)
        if _due(run.spec.train.eval_every, step) and step < run.num_steps:
            _evaluate(run, step)
        if _due(run.spec.train.checkpoint_every, step) and step < run.num_steps:
            _checkpoint(run, step)
    metrics |= _evaluate(run, step)
    run.method.finish()
    if run.weights is not None:
        run.weights.check()
    return metrics


def _due(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0


def _start(run: Training) -> int:
    """Resume if there is a checkpoint; returns the optimizer steps done."""
    # Rank 0 decides for all: each would read the whole checkpoint, and could see another one.
    find = partial(checkpoint.find, run.checkpoints, run.facts)
    found = run.ranks.gather(run.ranks.main_first(lambda: find() if run.ranks.is_main else None))[0]
    if found is None:
        _record(run, 0, run.method.attach)
        return 0
    directory, step = found
    progress = checkpoint.load(directory, engine=run.engine, weights=run.weights, method=run.method)
    run.data.train.load_state_dict(progress["stream"])
    run.history = progress["history"]
    log.info("resumed from %s: %d of %d steps are done", directory.name, step, run.num_steps)
    return step


def _optimizer_step(run: Training, step: int, window: "_Window") -> None:
    """Forward and backward over this rank's micro-batches, then one step of the optimizer.

    Losses are means over the rows of the whole step (all ranks, all micro-batches), whatever their number in each
    micro-batch.
    """
    engine, objective = run.engine, run.engine.objective
    engine.train_mode(True)
    engine.set_lr(_lr(run, step))
    objective.step = step
    batches = [to_device(batch, run.ranks.device) for batch in run.data.train.at(step)]
    rows = run.ranks.sum(torch.stack([objective.counts(batch) for batch in batches]).sum(0)).clamp(min=1)
    # Engines average over ranks and micro-batches; undo that, so that each row weighs the same.
    copies = run.ranks.world_size * len(batches)
    task_scale, teacher_scale = (copies / rows).tolist()
    for batch in batches:
        with engine.accumulate():
            run.method.before_forward(step)
            loss, sums, _ = engine.forward(batch, task_scale, teacher_scale)
            extra = run.method.extra_loss(step)
            engine.backward_and_step(loss if extra is None else loss + extra)
            window.add(sums, batch)
    window.rows += rows
    window.steps += 1


def _lr(run: Training, step: int) -> float:
    lr = run.spec.train.lr
    return lr.peak * lr_factor(step, run.num_steps, lr, run.spec.method)


def _update_masks(run: Training, step: int) -> None:
    _record(run, step, lambda: run.method.after_step(step))


def _record(run: Training, step: int, update: Any) -> None:
    """Let the method change masks; write down what changed."""
    weights = run.weights
    change = update()
    if change is None or weights is None:
        return
    run.history.append((step, run.method.target_sparsity(step), weights.sparsity, weights.iou_by_weight()))
    log.info("step %d: sparsity %.4f, %.2f%% of the mask flipped", step, weights.sparsity, 100 * change.flipped)
    if run.tracker is not None:
        points = {"mask/flipped": change.flipped, "mask/iou_prev": change.iou_kept}
        points |= {f"sparsity/layer/{name}": value for name, value in weights.sparsity_by_weight().items()}
        run.tracker.metrics(step, points)


def _log(run: Training, step: int, window: "_Window") -> None:
    sums, rows, tokens = run.ranks.sum(window.sums), window.rows, run.ranks.sum(window.tokens)
    losses = (sums / rows.clamp(min=1)).tolist()
    seconds = time.monotonic() - window.began
    curve, unit = run.task.throughput
    metrics = {"loss/task": losses[0], "lr": _lr(run, step - 1), curve: unit * float(tokens) / seconds}
    metrics["time/step_s"] = seconds / max(1, window.steps)
    weights = run.engine.objective.weights
    if run.engine.objective.teacher is not None:
        metrics["loss/teacher"] = losses[1]
        metrics["loss/total"] = weights.task * losses[0] + weights.teacher * losses[1]
    if run.weights is not None:
        metrics["sparsity/prunable"] = run.weights.sparsity
    if not all(torch.isfinite(torch.tensor(losses))):
        raise UserError(
            f"the loss is {losses[0]} at step {step}: training diverged; lower train.lr.peak, "
            "lengthen train.lr.warmup or use engine.precision fp32"
        )
    run.reporter.step(step, run.num_steps, metrics)
    log.info("step %d/%d: %s", step, run.num_steps, ", ".join(f"{k} {v:.4g}" for k, v in metrics.items()))
    if run.tracker is not None:
        run.tracker.metrics(step, metrics | _system_metrics(run.ranks))
    window.reset()


def _system_metrics(ranks: Ranks) -> dict[str, float]:
    """Memory of rank 0 and load of its node."""
    values = {
        "system/memory_rss_gb": psutil.Process().memory_info().rss / 1e9,
        "system/cpu_percent": psutil.cpu_percent(),
    }
    if ranks.device.type == "cuda":
        values["system/gpu_memory_peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return values


def _evaluate(run: Training, step: int) -> dict[str, float]:
    if run.data.eval is None:
        return {}
    run.reporter.phase("evaluating")
    run.engine.train_mode(False)
    with run.method.evaluating(), torch.no_grad():
        metrics = run.task.evaluate(run.engine, run.data.eval, run.ranks)
    log.info("step %d: %s", step, ", ".join(f"{k} {v:.4g}" for k, v in metrics.items()))
    if run.tracker is not None:
        run.tracker.metrics(step, metrics)
    return metrics


def _checkpoint(run: Training, step: int) -> None:
    run.guard()
    run.reporter.phase("saving")
    began = time.monotonic()
    checkpoint.save(
        run.checkpoints,
        step,
        attempt_id=run.attempt_id,
        engine=run.engine,
        weights=run.weights,
        method=run.method,
        progress={"stream": run.data.train.state_dict(), "history": run.history},
        facts=run.facts,
        keep=run.spec.train.keep_checkpoints,
    )
    log.info("step %d: checkpoint in %.1f s", step, time.monotonic() - began)


class _Window:
    """Sums since the last point of the curves; ``rows`` is over all ranks already, the others are this rank's."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64)
        self.rows = torch.zeros(2, dtype=torch.float64)
        self.tokens = torch.zeros(1, dtype=torch.float64)
        self.steps = 0
        self.began = time.monotonic()

    def add(self, sums: torch.Tensor, batch: dict[str, torch.Tensor]) -> None:
        """Take in one micro-batch."""
        self.sums = self.sums.to(sums.device) + sums.double()
        self.tokens = self.tokens.to(sums.device) + batch["attention_mask"].sum()
        self.rows = self.rows.to(sums.device)
