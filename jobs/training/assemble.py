"""From a spec to what the loop works on: sources on disk, student, teacher, objective, engine, shards."""

import logging
import math
import random
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from prunus.configs import JobSpec, Launch
from prunus.configs.artifacts.layout import JobDirectory
from prunus.configs.methods.dense import Dense
from prunus.configs.methods.locked import Locked
from prunus.configs.specs.training import lr_factor
from prunus.jobs.data.build import Inputs
from prunus.jobs.data.pipeline.batches import TaskData
from prunus.jobs.data.speech.speech_input import SpeechInput
from prunus.jobs.engine.engine import Engine, ParamGroup
from prunus.jobs.engine.precision import bf16_slows_down, uses_autocast
from prunus.jobs.engine.shards import shard_view
from prunus.jobs.methods import Method, Start, build_method
from prunus.jobs.methods.locked import fit_mask
from prunus.jobs.models.anatomy import anatomy_of
from prunus.jobs.models.compatibility import check_same_labels, check_same_tokenizer, check_same_units
from prunus.jobs.models.inputs import load_tokenizer
from prunus.jobs.models.load import load_model
from prunus.jobs.models.prunable import prunable_parameters
from prunus.jobs.models.sources import Origin, load_mask, open_source
from prunus.jobs.objectives.base import Weights
from prunus.jobs.objectives.distillation import HiddenMatch
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity import mask_store
from prunus.jobs.sparsity.arithmetic import Masks
from prunus.jobs.sparsity.masked_weights import MaskedWeights
from prunus.jobs.tasks import Task
from prunus.jobs.tasks.base import to_device

log = logging.getLogger(__name__)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def open_sources(launch: Launch, directory: JobDirectory) -> dict[str, Origin]:
    """Bring every source of the job to disk, verified; by role (model, teacher, mask)."""
    return {
        role: open_source(source, directory.root / "downloads" / role, launch.mlflow_uri)
        for role, source in launch.sources.items()
    }


def build_engine(
    spec: JobSpec,
    origins: dict[str, Origin],
    inputs: Inputs,
    task: Task,
    data: TaskData,
    ranks: Ranks,
) -> tuple[Engine, MaskedWeights | None, Method[Any], int]:
    """Student, teacher, method, objective, engine, shards: what the loop works on, and for how many optimizer steps."""
    if ranks.is_main and bf16_slows_down(spec, ranks.device):
        log.warning("engine.precision is bf16, but this CPU has no AMX: fp32 is likely to be faster")
    seed_all(spec.train.seed)  # the same new head on every rank
    if isinstance(inputs, SpeechInput) and spec.model.head == "keep" and spec.model.init == "pretrained":
        check_same_units(inputs, task.labels, origins["model"].reference)
    student = load_model(task.auto_class, origins["model"], spec.model, task.model_overrides())
    task.prepare(student)
    if spec.engine.activation_checkpointing:
        student.gradient_checkpointing_enable({"use_reentrant": False})
    teacher = _teacher(spec, origins, inputs, task, ranks)
    method = build_method(spec.method)
    anatomy = anatomy_of(student)
    groups = method.prepare(student, anatomy)
    prunable: dict[str, torch.nn.Parameter] = {}
    if method.prunes:
        assert not isinstance(spec.method, Dense)
        prunable = prunable_parameters(student, spec.method.prunable)
    shapes = {name: tuple(weight.shape) for name, weight in prunable.items()}
    given = _given_mask(spec, origins, shapes)
    base = mask_store.weights_digest(prunable) if prunable and ranks.is_main else ""
    distillation = spec.distillation
    mixture = Weights(
        task=distillation.task_weight if distillation else 1.0,
        teacher=distillation.teacher_weight if distillation else 0.0,
        temperature=distillation.temperature if distillation else 1.0,
        predicted_only=distillation is not None and distillation.tokens == "predicted",
        chunk_rows=distillation.chunk_rows if distillation else 512,
    )
    hidden = HiddenMatch(distillation.hidden, student, teacher) if distillation and distillation.hidden else None
    if hidden is not None and hidden.projection is not None and hidden.projection_lr is not None:
        groups.append(ParamGroup(tuple(hidden.projection.parameters()), hidden.projection_lr))
    sample = to_device(data.train.at(0)[0], ranks.device) if spec.engine.zero_stage is None else None
    objective = task.build_objective(student, teacher, mixture, uses_autocast(spec), hidden)
    engine = Engine(objective, spec, ranks, sample, groups)
    seed_all(spec.train.seed + ranks.rank)
    weights = None
    if prunable:
        shards = shard_view(prunable, engine.torch_optimizer, engine.engine_optimizer, ranks.rank)
        weights = MaskedWeights(shards, engine.engine_optimizer, ranks, tapped=method.reads_gradients)
    num_steps = spec.train.num_steps or _steps_of_epochs(spec, data)
    start = Start(
        # A method that prunes nothing never touches its weights.
        weights=weights or MaskedWeights([], engine.engine_optimizer, ranks),
        num_steps=num_steps,
        ranks=ranks,
        given_mask=given,
        num_heads=anatomy.num_heads,
        base_sha256=base,
        lr_factor=lambda step: lr_factor(step, num_steps, spec.train.lr, spec.method),
    )
    method.attach(start)
    return engine, weights, method, num_steps


def _steps_of_epochs(spec: JobSpec, data: TaskData) -> int:
    if data.steps_per_epoch is not None and spec.train.num_epochs is not None:
        return max(1, math.ceil(data.steps_per_epoch * spec.train.num_epochs))
    assert data.num_train_sequences is not None and spec.train.num_epochs is not None, "checked by JobSpec"
    return max(1, math.ceil(data.num_train_sequences * spec.train.num_epochs / spec.train.batch_size))


def _teacher(
    spec: JobSpec, origins: dict[str, Origin], inputs: Inputs, task: Task, ranks: Ranks
) -> PreTrainedModel | None:
    if spec.distillation is None:
        return None
    origin = origins["teacher"]
    assert not isinstance(inputs, SpeechInput), "checked by JobSpec"
    check_same_tokenizer(inputs, load_tokenizer(origin), origin.reference)
    teacher = load_model(task.auto_class, origin, None, {})
    check_same_labels(task.labels, teacher, origin.reference)
    dtype = torch.float32 if uses_autocast(spec) else _DTYPES[spec.engine.precision]
    return teacher.to(ranks.device, dtype).eval().requires_grad_(False)


def _given_mask(spec: JobSpec, origins: dict[str, Origin], shapes: dict[str, tuple[int, ...]]) -> Masks | None:
    """The mask that the spec names; for method locked else the one that the starting checkpoint brings."""
    role = "mask" if "mask" in origins else "model"
    if role == "model":
        asked = isinstance(spec.method, Locked) and spec.method.mask == "auto"
        if not asked or origins["model"].mask_directory is None:
            return None
    return fit_mask(load_mask(origins[role]), shapes, origins[role].reference)


def seed_all(seed: int) -> None:
    """Seed every generator that libraries draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
