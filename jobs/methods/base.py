"""What a pruning method is: hooks around the training loop, and no knowledge of engines.

    method.attach(start)                          once, after the engine has taken the model; or load_state_dict
    for step in range(num_steps):
        for micro_batch in batches(step):
            method.before_forward(step)
            loss = task and distillation losses + method.extra_loss(step)
            backward
        optimizer.step(); steps_done = step + 1
        method.after_step(steps_done)             masks may change here, and only here
        log, evaluate (inside method.evaluating()), checkpoint (state_dict)
    method.finish()                               before the model is written

A method sees ``MaskedWeights`` (shards of fp32 masters, masks) and never a parameter. To add one: a spec class in
``configs/methods/union.py``, a file here, a line in ``METHODS``, recipes, a test file; the contract suite runs over
it by itself.
"""

from abc import ABC
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from prunus.configs.artifacts.comparison.overlap import Overlap
from prunus.configs.methods.dense import Dense
from prunus.configs.methods.gradual_magnitude import GradualMagnitude
from prunus.configs.methods.locked import Locked
from prunus.configs.methods.parp import Parp
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.arithmetic import Masks
from prunus.jobs.sparsity.masked_weights import MaskedWeights

SpecT = TypeVar("SpecT", Dense, GradualMagnitude, Locked, Parp)


@dataclass(frozen=True)
class Start:
    """What a method gets to know at its start.

    Attributes:
        weights: Prunable weights and their masks.
        num_steps: Optimizer steps of the job.
        ranks: The gang.
        given_mask: Mask that the starting checkpoint or the spec brings, checked against the weights' shapes; None if
            there is none.
        num_heads: Attention heads of the model; None if its configuration names none.
        base_sha256: Digest of the prunable weights before the first step, on rank 0; empty elsewhere.
    """

    weights: MaskedWeights
    num_steps: int
    ranks: Ranks
    given_mask: Masks | None
    num_heads: int | None = None
    base_sha256: str = ""


class Method(ABC, Generic[SpecT]):
    """Base of all methods: prunes nothing, keeps no state."""

    prunes = True
    """Whether the method needs prunable weights at all."""

    def __init__(self, spec: SpecT, start: Start) -> None:
        self.spec: SpecT = spec
        self.start = start
        self.weights = start.weights

    def attach(self) -> None:
        """Set the first masks (step 0)."""

    def before_forward(self, step: int) -> None:
        """Called before each forward pass of a micro-batch."""

    def extra_loss(self, step: int) -> torch.Tensor | None:
        """A scalar added to the loss of each micro-batch, or None."""

    def after_step(self, steps_done: int) -> Overlap | None:
        """Called after each optimizer step; returns what changed if masks changed."""

    def evaluating(self) -> AbstractContextManager[None]:
        """Around every evaluation: what is measured is what would be exported, masks times weights (collective)."""
        return nullcontext()

    @property
    def pattern(self) -> str:
        """Which weights went together, for the mask file: a word of the recipe; ``given`` for masks from elsewhere."""
        return "given"

    def target_sparsity(self, step: int) -> float:
        """Sparsity that the method aims at after ``step`` optimizer steps, in [0, 1)."""
        del step
        return self.weights.sparsity

    def masks(self) -> Masks:
        """Masks in force, for export; {} for a method that prunes nothing."""
        return self.weights.masks if self.prunes else {}

    def state_dict(self) -> dict[str, Any]:
        """This rank's state: tensors and plain values only (it is read back with ``weights_only``)."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave; masks are restored by the checkpoint before."""

    def finish(self) -> None:
        """Last call before the model is written."""
