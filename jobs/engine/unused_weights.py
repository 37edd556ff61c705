"""Which trained weights a loss depends on. DDP waits for a gradient of every one, unless it is told to look."""

from typing import Any

import torch

from prunus.jobs.objectives.base import Batch, Objective


def weights_out_of_reach(objective: Objective, batch: Batch) -> list[str]:
    """Return the names of trained weights of the student that the loss of this batch does not depend on: XLNet's
    ``mask_emb`` in a classifier, for one.

    One forward pass in training mode, no backward: what counts is the graph, not its values. Draws random numbers.

    Args:
        objective: Not wrapped by an engine yet; on the batch's device. Left as it was.
        batch: A micro-batch of training.
    """
    was_training, buffers = objective.training, [(buffer, buffer.clone()) for buffer in objective.buffers()]
    objective.train()
    loss, _, _ = objective(batch, [1.0 for _ in objective.terms])
    objective.train(was_training)
    for buffer, before in buffers:  # statistics of a BatchNorm
        buffer.copy_(before)
    reached = _leaves(loss)
    return [
        name
        for name, weight in objective.student.named_parameters()
        if weight.requires_grad and id(weight) not in reached
    ]


def _leaves(loss: torch.Tensor) -> set[int]:
    """Ids of the tensors at the ends of the graph."""
    found: set[int] = set()
    seen: set[Any] = set()
    ahead: list[Any] = [loss.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        ahead += [following for following, _ in node.next_functions]
    return found
