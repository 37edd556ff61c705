"""The training loop. Read this first; the hooks of a method are drawn in ``methods/base``."""

import logging
import math
import time
from functools import partial

import torch

from prunus.jobs.errors import UserError
from prunus.jobs.tasks.base import to_device
from prunus.jobs.training import checkpoint
from prunus.jobs.training.curves import Window, system_metrics
from prunus.jobs.training.training import Training

log = logging.getLogger(__name__)


def train(run: Training) -> dict[str, float]:
    """Train from the newest checkpoint, or from the start, to the end; returns the final metrics (equal on all
    ranks).
    """
    step = _start(run)
    window = Window(len(run.engine.objective.terms))
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
        run.method.first_masks()
        return 0
    directory, step = found
    progress = checkpoint.load(directory, engine=run.engine, weights=run.weights, method=run.method)
    run.data.train.load_state_dict(progress["stream"])
    run.history = progress["history"]
    log.info("resumed from %s: %d of %d steps are done", directory.name, step, run.num_steps)
    return step


def _optimizer_step(run: Training, step: int, window: "Window") -> None:
    """Forward and backward over this rank's micro-batches, then one step of the optimizer.

    Losses are means over the rows of the whole step (all ranks, all micro-batches), whatever their number in each
    micro-batch.
    """
    engine, objective = run.engine, run.engine.objective
    engine.train_mode(True)
    engine.set_lr(run.lr_factor(step))
    objective.step = step
    batches = [to_device(batch, run.ranks.device) for batch in run.data.train.at(step)]
    rows = run.ranks.sum(torch.stack([objective.counts(batch) for batch in batches]).sum(0)).clamp(min=1)
    # Engines average over ranks and micro-batches; undo that, so that each row weighs the same.
    copies = run.ranks.world_size * len(batches)
    scales = (copies / rows).tolist()
    tap = partial(_read_gradients, run, step) if run.method.reads_gradients else None
    for batch in batches:
        with engine.accumulate():
            loss, sums, _ = engine.forward(batch, scales)
            engine.backward_and_step(loss, tap)
            window.add(sums, batch)
    window.rows += rows
    window.steps += 1


def _read_gradients(run: Training, step: int) -> None:
    """Let the method see the gradients of all weights; then those of removed ones go."""
    run.method.read_gradients(step)
    if run.weights is not None:
        run.weights.mask_gradients()


def _update_masks(run: Training, step: int) -> None:
    """Let the method change masks; write down what changed."""
    weights = run.weights
    change = run.method.after_step(step)
    if change is None or weights is None:
        return
    run.history.append((step, run.method.target_sparsity(step), weights.sparsity, weights.iou_by_weight()))
    log.info("step %d: sparsity %.4f, %.2f%% of the mask flipped", step, weights.sparsity, 100 * change.flipped)
    if run.tracker is not None:
        points = {"mask/flipped": change.flipped, "mask/iou_prev": change.iou_kept}
        points |= {f"sparsity/layer/{name}": value for name, value in weights.sparsity_by_weight().items()}
        run.tracker.metrics(step, points)


def _log(run: Training, step: int, window: "Window") -> None:
    sums, rows, tokens = run.ranks.sum(window.sums), window.rows, run.ranks.sum(window.tokens)
    losses = (sums / rows.clamp(min=1)).tolist()
    seconds = time.monotonic() - window.began
    curve, unit = run.task.throughput
    terms = run.engine.objective.terms
    metrics = {f"loss/{term.name}": loss for term, loss in zip(terms, losses, strict=True)}
    if len(terms) > 1:
        metrics["loss/total"] = sum(term.weight * loss for term, loss in zip(terms, losses, strict=True))
    metrics |= {"lr": run.spec.train.lr.peak * run.lr_factor(step - 1), curve: unit * float(tokens) / seconds}
    metrics["time/step_s"] = seconds / max(1, window.steps)
    if run.weights is not None:
        metrics["sparsity/prunable"] = run.weights.sparsity
    for term, loss in zip(terms, losses, strict=True):
        if math.isfinite(loss):
            continue
        raise UserError(
            f"loss/{term.name} is {loss} at step {step}: training diverged; lower train.lr.peak, "
            "lengthen train.lr.warmup or use engine.precision fp32"
        )
    run.reporter.step(step, run.num_steps, metrics)
    log.info("step %d/%d: %s", step, run.num_steps, ", ".join(f"{k} {v:.4g}" for k, v in metrics.items()))
    if run.tracker is not None:
        run.tracker.metrics(step, metrics | system_metrics(run.ranks))
    window.reset()


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
