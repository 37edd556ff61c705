"""A job over its steps: sparsity and learning rate.

The same pure functions (of ``configs.methods`` and ``specs.training``) decide in training.
"""

from dataclasses import dataclass

from prunus.configs import JobSpec
from prunus.configs.specs.training import lr_factor

_UNKNOWN_STEPS = 1000
"""Drawn where the number of steps follows from the data."""


@dataclass(frozen=True)
class Curves:
    """A job over its optimizer steps 0 .. num_steps.

    Attributes:
        num_steps: Optimizer steps; a stand-in where ``known`` is false.
        known: False where the steps follow from the data (``num_epochs``).
        learning_rate: At each step 0 .. num_steps - 1.
        sparsity: Of the prunable weights after each step 0 .. num_steps; empty where masks never change.
        updates: Steps after which masks are chosen.
    """

    name: str
    num_steps: int
    known: bool
    learning_rate: tuple[float, ...]
    sparsity: tuple[float, ...]
    updates: tuple[int, ...]


def curves(spec: JobSpec) -> Curves:
    """Evaluate the schedules of a job at every step. Pure."""
    known = spec.train.num_steps is not None
    num_steps = spec.train.num_steps or _UNKNOWN_STEPS
    lr, method = spec.train.lr, spec.method
    rates = tuple(lr.peak * lr_factor(step, num_steps, lr, method) for step in range(num_steps))
    sparsity: list[float] = []
    updates: list[int] = []
    if method.sparsity_at(0, num_steps) is not None:
        reached = 0.0
        for step in range(num_steps + 1):
            if method.updates_after(step, num_steps):
                updates.append(step)
                reached = method.sparsity_at(step, num_steps) or 0.0
            sparsity.append(reached)
    return Curves(spec.name, num_steps, known, rates, tuple(sparsity), tuple(updates))
