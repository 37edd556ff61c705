"""``JobSpec``: one job as a composition, task x model x method x distillation x engine. Its base, ``JobBase``, is what
every kind of job has; ``configs.specs.comparison`` holds the other kind.

Every field says its unit and range. Nothing here imports torch: a wrong number is refused before a GPU is booked.
"""

import math
import re
from abc import abstractmethod
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from prunus.configs.methods.union import Dense, GradualMagnitude, Locked, MethodSpec
from prunus.configs.tasks.union import CTC, TaskSpec, Wav2Vec2Pretraining
from prunus.configs.values.base import BelowOne, Fraction, Strict
from prunus.configs.values.sources import Source, job_name, source_kind

_BATCH_SIZE = 32
OWN_MASKS = {"auto", "zeros", "magnitude"}
"""Values of ``method.mask`` that name no source."""

JobName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$"),
    Field(description="Lower-case letters, digits, dots, dashes and underscores, at most 100."),
]


class ModelSpec(Strict):
    """The network and its starting weights."""

    source: Source = Field(alias="from")
    """job:NAME, models:/NAME@ALIAS, a directory, or a hub id."""
    init: Literal["pretrained", "random"] = "pretrained"
    """``random``: take only the configuration and tokenizer of the source."""
    head: Literal["keep", "new"] = "keep"
    """``new``: begin with a random head, whatever head the checkpoint has (another language's vocabulary, other
    classes). ``keep``: use the checkpoint's where there is one; one that does not fit is refused."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the model's configuration, for example ``{hidden_dropout_prob: 0.0}``. Unknown keys are refused
    when the job starts."""


class Distillation(Strict):
    """Learn from a teacher's logits (Hinton et al., arXiv 1503.02531; Prune OFA section 3)."""

    teacher: Source
    temperature: float = Field(default=2.0, gt=0.0)
    """Softmax temperature T of both; the term is scaled by T squared. Paper: 2."""
    task_weight: Fraction = 0.5
    """Weight of the task's own loss. Paper: 0.5 at pre-training; Intel's transfer recipes: 0."""
    teacher_weight: Fraction = 0.5
    """Weight of the distillation term. Paper: 0.5; Intel's transfer recipes: 1."""
    tokens: Literal["all", "predicted"] = "all"
    """masked_lm: which rows count. ``all`` non-padding tokens (paper) or only the ``predicted`` ones (cheaper)."""
    chunk_rows: int = Field(default=512, ge=1)
    """Rows whose vocabulary-size logits exist at one time."""

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if self.task_weight == 0.0 and self.teacher_weight == 0.0:
            raise ValueError("task_weight and teacher_weight are both 0: nothing would be learned")
        return self


class LearningRate(Strict):
    """Learning rate over the optimizer steps."""

    peak: float = Field(gt=0.0, lt=10.0)
    """Highest learning rate. ``linear_rewind`` with growth from step 0 passes it, to (N - P) / (N - P - w) of it, of N
    steps with P of growth and w of warm-up: 2% in the paper's recipe; ``prunus plan`` draws it."""
    schedule: Literal["linear", "linear_rewind", "constant", "tri_stage"] = "linear"
    """``linear`` to 0; ``constant``; ``tri_stage``: rise from 1%, hold for ``hold`` of the steps, exponential fall to
    5% (wav2vec 2.0; use warmup 0.1); ``linear_rewind``: linear, jumping back at each mask update while sparsity
    grows (Prune OFA; needs method gradual_magnitude)."""
    warmup: Fraction = 0.01
    """Share of the steps for the linear rise from 0. Paper: 0.01."""
    hold: Fraction = 0.4
    """tri_stage: share of the steps at the peak. wav2vec 2.0: 0.4."""

    @model_validator(mode="after")
    def _stages(self) -> Self:
        if self.schedule == "tri_stage" and self.warmup + self.hold > 1.0:
            raise ValueError(f"warmup {self.warmup} and hold {self.hold} are more than the whole job; shorten one")
        return self


class Train(Strict):
    """Steps, batches and optimizer (AdamW)."""

    num_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps. Exactly one of num_steps and num_epochs."""
    num_epochs: float | None = Field(default=None, gt=0.0)
    """Passes over the train split; the steps follow when the data is known."""
    batch_size: int = Field(default=_BATCH_SIZE, ge=1)
    """Sequences per optimizer step over all ranks (global): the same whatever the number of ranks."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Sequences per rank and forward pass; the rest of batch_size is gradient accumulation. None: no accumulation."""
    batch_seconds: float | None = Field(default=None, gt=0.0)
    """Speech: seconds of audio per optimizer step over all ranks, padding included, instead of batch_size: many short
    clips or few long ones. PARP: 1600 (base: 3.2M samples x 2 x 4 GPUs)."""
    micro_batch_seconds: float | None = Field(default=None, gt=0.0)
    """With batch_seconds: seconds per rank and forward pass; the rest is gradient accumulation. None: none."""
    lr: LearningRate
    weight_decay: float = Field(default=0.01, ge=0.0)
    """Decoupled; not on biases and LayerNorm. Paper: 0.01."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    """Decay of the first and second moment, each in [0, 1)."""
    eps: float = Field(default=1e-8, gt=0.0)
    max_grad_norm: float | None = Field(default=1.0, gt=0.0)
    """Clip the global gradient norm to this; None: no clipping."""
    seed: int = Field(default=42, ge=0, lt=2**31)
    log_every: int = Field(default=10, ge=1)
    """Steps between two points of a curve."""
    eval_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations; None: only at the end."""
    checkpoint_every: int | None = Field(default=None, ge=1)
    """Steps between checkpoints of the full state; None: none but what preemption asks for."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints kept."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.num_steps is None) == (self.num_epochs is None):
            raise ValueError("give exactly one of num_steps and num_epochs")
        if self.micro_batch_seconds is not None and self.batch_seconds is None:
            raise ValueError("micro_batch_seconds goes with batch_seconds; use micro_batch_size")
        if self.batch_seconds is not None and (self.micro_batch_size or self.batch_size != _BATCH_SIZE):
            raise ValueError("batch_seconds stands in place of batch_size and micro_batch_size; give one of the two")
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}"
            )
        return self


class Engine(Strict):
    """How the ranks share the work: Accelerate over DeepSpeed ZeRO or over plain DDP."""

    strategy: Literal["ddp", "zero0", "zero1", "zero2", "zero3"] = "zero2"
    """DeepSpeed ZeRO stage, or plain DistributedDataParallel without DeepSpeed."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of forward and backward; master weights and Adam moments are fp32 always. ``fp16`` (for GPUs before
    bf16) scales the loss dynamically, skips steps that overflow, and needs zero1, zero2 or zero3."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    deepspeed: dict[str, Any] = Field(default_factory=dict)
    """Merged over ``configs/deepspeed/zeroN.json``; keys that prunus computes (batch sizes, precision,
    optimizer, stage) are refused."""

    @property
    def zero_stage(self) -> int | None:
        """ZeRO stage 0-3, or None for plain DDP."""
        return None if self.strategy == "ddp" else int(self.strategy[-1])

    @model_validator(mode="after")
    def _no_owned_keys(self) -> Self:
        owned = {
            "train_batch_size",
            "train_micro_batch_size_per_gpu",
            "gradient_accumulation_steps",
            "gradient_clipping",
            "bf16",
            "fp16",
            "optimizer",
            "scheduler",
        }
        clash = sorted(owned & set(self.deepspeed))
        if self.precision == "fp16" and self.zero_stage in {None, 0}:
            raise ValueError(
                f"precision fp16 with strategy {self.strategy} has no fp32 masters that masks could hold; use zero1, "
                "zero2 or zero3, or precision bf16"
            )
        zero = self.deepspeed.get("zero_optimization", {})
        if not isinstance(zero, dict):
            raise ValueError(f"deepspeed.zero_optimization must be a mapping of keys, got {zero!r}")
        if "stage" in zero:
            clash.append("zero_optimization.stage")
        offload = sorted(key for key in zero if key.startswith("offload_"))
        if offload:
            raise ValueError(
                f"deepspeed.zero_optimization.{offload[0]}: masks cannot follow weights off the device yet; use a "
                "higher ZeRO stage, more ranks or engine.activation_checkpointing"
            )
        if clash:
            raise ValueError(f"set by prunus, not here: {', '.join(clash)}; use train: and engine.strategy")
        if self.deepspeed and self.strategy == "ddp":
            raise ValueError("deepspeed settings have no effect with strategy ddp")
        return self


class Resources(Strict):
    """What the gang needs; it starts whole or waits."""

    num_ranks: int = Field(default=1, ge=1)
    """Processes of the gang."""
    cpus_per_rank: float = Field(default=1.0, gt=0.0)
    gpus_per_rank: int = Field(default=0, ge=0)
    """0: train on CPU with gloo; 1: one GPU per rank with nccl."""
    placement: Literal["pack", "spread"] = "pack"
    """``pack`` ranks on as few nodes as possible, or ``spread`` them."""

    @model_validator(mode="after")
    def _one_gpu(self) -> Self:
        if self.gpus_per_rank > 1:
            raise ValueError(f"gpus_per_rank is {self.gpus_per_rank}; a rank drives one GPU: raise num_ranks instead")
        return self


class Output(Strict):
    """What a job leaves beside its metrics."""

    register_as: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name in the MLflow model registry; None: not registered."""
    alias: str = Field(default="current", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Alias set on the new registry version. MLflow keeps ``latest`` and ``v1``, ``v2``, ... for itself."""

    @field_validator("alias")
    @classmethod
    def _free(cls, alias: str) -> str:
        if re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
            raise ValueError(f"the alias {alias!r} is reserved by MLflow; use another word, for example current")
        return alias


class JobBase(Strict):
    """What every kind of job has: a name, its place in the campaign, what it needs to run."""

    schema_version: Literal[1] = 1
    name: JobName
    labels: dict[str, str] = Field(default_factory=dict)
    after: tuple[JobName, ...] = ()
    """Jobs of the same campaign that must have succeeded first; those named by ``from:`` are added."""
    resources: Resources = Resources()
    timeout_s: float | None = Field(default=None, gt=0.0)
    """Longest running time of one attempt in seconds; None: no limit."""

    @property
    @abstractmethod
    def sources(self) -> dict[str, str]:
        """References that must be resolved before the job can start, by role."""

    @property
    def parents(self) -> tuple[str, ...]:
        """Names of the jobs this one reads from, in order of role."""
        return tuple(dict.fromkeys(job_name(s) for s in self.sources.values() if source_kind(s) == "job"))


class JobSpec(JobBase):
    """One job that trains. Identity is its content: two equal specs ask for the same thing."""

    task: TaskSpec
    model: ModelSpec
    method: MethodSpec = Dense()
    distillation: Distillation | None = None
    train: Train
    engine: Engine = Engine()
    output: Output = Output()

    @property
    def micro_batch_size(self) -> int:
        """Sequences per rank and forward pass; with ``batch_seconds`` a number that only engines want to see."""
        if self.train.batch_seconds is not None:
            return 1
        return self.train.micro_batch_size or self.train.batch_size // self.resources.num_ranks

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches per optimizer step on each rank."""
        if self.train.batch_seconds is not None:
            each = self.train.micro_batch_seconds or self.train.batch_seconds
            return max(1, math.ceil(self.train.batch_seconds / (each * self.resources.num_ranks) - 1e-9))
        return self.train.batch_size // (self.micro_batch_size * self.resources.num_ranks)

    @property
    def sources(self) -> dict[str, str]:
        """References that must be resolved before the job can start, by role (model, teacher, mask)."""
        found = {"model": self.model.source}
        if self.distillation is not None:
            found["teacher"] = self.distillation.teacher
        mask = getattr(self.method, "mask", None)
        if mask is not None and mask not in OWN_MASKS:
            found["mask"] = mask
        return found

    @model_validator(mode="after")
    def _cross_rules(self) -> Self:
        self._speech_rules()
        per_pass = self.micro_batch_size * self.resources.num_ranks
        if self.train.batch_seconds is None and (self.micro_batch_size < 1 or self.train.batch_size % per_pass):
            raise ValueError(
                f"train.batch_size {self.train.batch_size} cannot be split over resources.num_ranks "
                f"{self.resources.num_ranks} x train.micro_batch_size {self.train.micro_batch_size or 'auto'}; "
                f"use a multiple of {(self.train.micro_batch_size or 1) * self.resources.num_ranks}"
            )
        if self.train.lr.schedule == "linear_rewind" and not isinstance(self.method, GradualMagnitude):
            raise ValueError(
                f"train.lr.schedule linear_rewind follows the mask updates of gradual_magnitude, but method is "
                f"{self.method.name}; use linear"
            )
        if self.train.lr.schedule == "linear_rewind" and isinstance(self.method, GradualMagnitude):
            begin, end = self.method.growth_window
            if (used := end - begin + self.train.lr.warmup) > 0.9:
                raise ValueError(
                    f"train.lr.schedule linear_rewind decays over what growth_window and warmup leave of the job, here "
                    f"{max(0.0, 1.0 - used):.2f} of it; leave at least 0.1, or use linear"
                )
        endless = self.task.data.streaming and (not self._hears or self._reads_hub())
        if endless and self.train.num_steps is None:
            raise ValueError("task.data.streaming has no known length; give train.num_steps instead of num_epochs")
        if self.model.init == "random" and isinstance(self.method, Locked) and self.method.mask == "auto":
            raise ValueError("method locked with model.init random has no pattern to keep; give method.mask")
        return self

    @property
    def _hears(self) -> bool:
        return isinstance(self.task, CTC | Wav2Vec2Pretraining)

    def _reads_hub(self) -> bool:
        return any(source.hub for place, source in self.task.data.sources.items() if place.startswith("train"))

    def _speech_rules(self) -> None:
        if self.train.batch_seconds is not None and not self._hears:
            raise ValueError(
                f"train.batch_seconds counts audio, which task {self.task.name} has none of; use batch_size"
            )
        if not self._hears:
            return
        if self.distillation is not None:
            alone = "transcripts" if isinstance(self.task, CTC) else "the clips themselves"
            raise ValueError(f"task {self.task.name} learns from {alone} alone; leave distillation out")
        if float(self.model.config.get("layerdrop", 0.0)) > 0.0:
            raise ValueError(
                "model.config.layerdrop: ranks that drop different layers cannot exchange gradients; leave it out (0)"
            )
        if not isinstance(self.task, CTC) or not self.task.freeze_updates:
            return
        if self.train.num_steps is not None and self.task.freeze_updates >= self.train.num_steps:
            raise ValueError(
                f"task.freeze_updates {self.task.freeze_updates} leaves none of train.num_steps {self.train.num_steps} "
                "in which more than the head learns; lower it, or train longer"
            )
        if self.train.weight_decay:
            raise ValueError(
                f"train.weight_decay {self.train.weight_decay} would shrink the weights that task.freeze_updates "
                "holds; set weight_decay: 0"
            )
