"""How a job trains: steps, batches, learning rate, and that rate at every step.

Source of ``linear_rewind``: the scheduler published with "Prune Once for All" (Zafrir et al., arXiv 2111.05754).
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from prunus.configs.methods.gradual_magnitude import GradualMagnitude
from prunus.configs.methods.union import MethodSpec
from prunus.configs.schedules import tri_stage, window_steps
from prunus.configs.values.base import BelowOne, Fraction, Strict

_BATCH_SIZE = 32


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
    """Learning rate over the steps."""
    weight_decay: float = Field(default=0.01, ge=0.0)
    """Decoupled; not on biases and LayerNorm. Paper: 0.01."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    """Decay of the first and second moment, each in [0, 1)."""
    eps: float = Field(default=1e-8, gt=0.0)
    """AdamW's epsilon."""
    max_grad_norm: float | None = Field(default=1.0, gt=0.0)
    """Clip the global gradient norm to this; None: no clipping."""
    seed: int = Field(default=42, ge=0, lt=2**31)
    """Seed of the data order, of masking, of dropout and of new heads."""
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


def lr_factor(step: int, num_steps: int, lr: LearningRate, method: MethodSpec) -> float:
    """Share of the peak learning rate at a step, >= 0.

    ``linear_rewind`` (2111.05754; the published scheduler): with N steps, warm-up w, growth [b, e), P = e - b and
    updates every f steps
      t < w         t / w
      w <= t < b    (N - P - t) / (N - P - w)
      b <= t < e    (N - P - t + r) / (N - P - w), r = floor((t - b) / f) f, so that the decay is rewound at each update
      e <= t        (N - t) / (N - P - w)
    """
    warmup = round(lr.warmup * num_steps)
    if lr.schedule == "tri_stage":
        return tri_stage(step, num_steps, warmup, round(lr.hold * num_steps))
    if step < warmup:
        return step / warmup
    if lr.schedule == "constant":
        return 1.0
    if lr.schedule == "linear":
        return max(0.0, (num_steps - step) / max(1, num_steps - warmup))
    assert isinstance(method, GradualMagnitude), "checked by JobSpec"
    growth = window_steps(method.growth_window, num_steps)
    paused = growth.end - growth.begin
    length = max(1, num_steps - paused - warmup)
    if step >= growth.end:
        return max(0.0, (num_steps - step) / length)
    if step < growth.begin:
        return max(0.0, (num_steps - paused - step) / length)
    # The published formula rewinds to r whole intervals after b; written relative to b it needs no offset.
    rewound = (step - growth.begin) // method.update_every * method.update_every
    return max(0.0, (num_steps - paused - step + rewound) / length)
