"""``JobSpec``: one job as a composition, task x model x method x distillation x engine. Its base, ``JobBase``, is what
every kind of job has; ``configs.specs.comparison`` holds the other kind.

Every field says its unit and range. Nothing here imports torch: a wrong number is refused before a GPU is booked.
"""

import math
from typing import Self

from pydantic import model_validator

from prunus.configs.methods.dense import Dense
from prunus.configs.methods.gradual_magnitude import GradualMagnitude
from prunus.configs.methods.locked import Locked
from prunus.configs.methods.union import MethodSpec
from prunus.configs.specs.base import JobBase
from prunus.configs.specs.distillation import Distillation
from prunus.configs.specs.engine import Engine
from prunus.configs.specs.model import ModelSpec
from prunus.configs.specs.output import Output
from prunus.configs.specs.training import Train
from prunus.configs.tasks.ctc import CTC
from prunus.configs.tasks.union import TaskSpec
from prunus.configs.tasks.wav2vec2_pretraining import Wav2Vec2Pretraining

OWN_MASKS = {"auto", "zeros", "magnitude"}
"""Values of ``method.mask`` that name no source."""


class JobSpec(JobBase):
    """One job that trains. Identity is its content: two equal specs ask for the same thing."""

    task: TaskSpec
    """What is learned, and from which data."""
    model: ModelSpec
    """The network and its starting weights."""
    method: MethodSpec = Dense()
    """What happens to the weights."""
    distillation: Distillation | None = None
    """Learn from a teacher, too; null: from the task alone."""
    train: Train
    """Steps, batches, optimizer and learning rate."""
    engine: Engine = Engine()
    """How the ranks share the work."""
    output: Output = Output()
    """What becomes of the model."""

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
