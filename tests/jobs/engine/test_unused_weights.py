"""Which weights a loss depends on, by graphs drawn here."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from prunus.jobs.engine.unused_weights import weights_out_of_reach
from prunus.jobs.objectives.base import Term


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle, self.frozen, self.tied = (nn.Linear(2, 2) for _ in range(4))
        self.frozen.requires_grad_(False)


class Loss(nn.Module):
    terms = (Term("task", 1.0),)

    """``how`` says by which way the weights come into the loss."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.student, self.how = Student(), how
        self.modes: list[bool] = []

    def forward(self, x_B2: torch.Tensor, scales: list[float]) -> tuple[torch.Tensor, None, None]:
        assert scales == [1.0]
        self.modes.append(self.training)
        student = self.student
        hidden = self.student.frozen(student.used(x_B2)) + student.tied(student.tied(x_B2))
        if self.how == "by nothing":
            hidden = hidden + 0.0 * student.idle(x_B2)
        if self.how == "checkpointed":
            hidden = checkpoint(student.idle, hidden, use_reentrant=False)
        if self.how == "detached":
            hidden = hidden + student.idle(x_B2).detach()
        return hidden.sum(), None, None


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("plain", ["idle.weight", "idle.bias"]),
        ("detached", ["idle.weight", "idle.bias"]),
        ("by nothing", []),  # a gradient of 0 is one
        ("checkpointed", []),
    ],
)
def test_weights_without_a_way_into_the_loss_are_named(how: str, expected: list[str]) -> None:
    objective = Loss(how).eval()
    assert weights_out_of_reach(objective, torch.ones(3, 2)) == expected  # type: ignore[arg-type]
    assert objective.modes == [True] and not objective.training  # as in training, and put back
    assert all(weight.grad is None for weight in objective.parameters())
