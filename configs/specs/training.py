"""How a job trains: steps, batches, learning rate."""

from typing import Literal, Self

from pydantic import Field, model_validator

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
