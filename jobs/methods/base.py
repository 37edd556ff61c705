"""What a pruning method is: hooks around the training loop, and no knowledge of engines.

    groups = method.prepare(model, anatomy)       before the engine takes the model: freeze, add parameters of its own
    method.attach(start)                          after it: weights, ranks, schedule
    method.first_masks()                          once, at step 0; or load_state_dict
    for step in range(num_steps):
        for micro_batch in batches(step):
            forward; loss = sum of the objective's terms; backward
        method.read_gradients(step)               of all weights, removed ones too; only if reads_gradients
        optimizer.step(); steps_done = step + 1
        method.after_step(steps_done)             masks may change here, and only here
        log, evaluate (inside method.evaluating()), checkpoint (state_dict)
    method.finish()                               what is written: kind of result, masks

A method sees ``MaskedWeights`` (shards of fp32 masters, masks); only ``prepare`` sees the model. To add one: a spec
class in ``configs/methods``, a file here, a line in ``METHODS``, recipes, a test file; the contract suite runs over it
by itself.
"""

from abc import ABC
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from transformers import PreTrainedModel

from prunus.configs.artifacts.comparison.overlap import Overlap
from prunus.configs.methods.base import MethodBase
from prunus.jobs.engine.engine import ParamGroup
from prunus.jobs.models.anatomy import Anatomy
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.arithmetic import Masks
from prunus.jobs.sparsity.masked_weights import MaskedWeights

SpecT = TypeVar("SpecT", bound=MethodBase)


@dataclass(frozen=True)
class Start:
    """What a method gets to know once the engine has the model.

    Attributes:
        weights: Prunable weights and their masks.
        num_steps: Optimizer steps of the job.
        ranks: The gang.
        given_mask: Mask that the starting checkpoint or the spec brings, checked against the weights' shapes; None if
            there is none.
        num_heads: Attention heads of the model; None if its configuration names none.
        base_sha256: Digest of the prunable weights before the first step, on rank 0; empty elsewhere.
        lr_factor: Share of the highest learning rate at an optimizer step.
    """

    weights: MaskedWeights
    num_steps: int
    ranks: Ranks
    given_mask: Masks | None
    num_heads: int | None = None
    base_sha256: str = ""
    lr_factor: Callable[[int], float] = lambda _: 1.0


@dataclass(frozen=True)
class Finished:
    """What a method leaves when training has ended.

    Attributes:
        kind: ``dense``; or ``masked``: weights of full size, zeros where masks say so.
        masks: In force at the end; {} if nothing is pruned.
        pattern: Which weights went together, for the mask file.
    """

    kind: Literal["dense", "masked"]
    masks: Masks
    pattern: str


class Method(ABC, Generic[SpecT]):
    """Base of all methods: prunes nothing, keeps no state."""

    prunes = True
    """Whether the method needs prunable weights at all."""
    reads_gradients = False
    """Whether the method learns from gradients, those of removed weights included."""

    start: Start
    weights: MaskedWeights

    def __init__(self, spec: SpecT) -> None:
        self.spec: SpecT = spec

    def prepare(self, model: PreTrainedModel, anatomy: Anatomy) -> list[ParamGroup]:
        """Change what the engine is about to take: freeze parameters, add some; returns those that are its own."""
        del model, anatomy
        return []

    def attach(self, start: Start) -> None:
        """Get to know weights and ranks (every start, resumed ones too); no mask changes."""
        self.start = start
        self.weights = start.weights

    def first_masks(self) -> None:
        """Set the masks of step 0; not called when a job is resumed."""

    def read_gradients(self, step: int) -> None:
        """Called between the last backward pass of optimizer step ``step`` and the optimizer (``engine.gradients``)."""

    def after_step(self, steps_done: int) -> Overlap | None:
        """Called after each optimizer step; returns what changed if masks changed."""

    def evaluating(self) -> AbstractContextManager[None]:
        """Around every evaluation: what is measured is what would be exported, masks times weights (collective)."""
        return nullcontext()

    @property
    def pattern(self) -> str:
        """Which weights went together, for the mask file: a word of the recipe; ``given`` for masks from elsewhere."""
        return "given"

    def target_sparsity(self, step: int) -> float | None:
        """Sparsity that the method aims at after ``step`` optimizer steps, in [0, 1); None: at none."""
        return self.spec.sparsity_at(step, self.start.num_steps)

    def finish(self) -> Finished:
        """Last call before the model is written."""
        return Finished("masked" if self.prunes else "dense", self.weights.masks if self.prunes else {}, self.pattern)

    def state_dict(self) -> dict[str, Any]:
        """This rank's state: tensors and plain values only (it is read back with ``weights_only``)."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave; masks are restored by the checkpoint before."""
