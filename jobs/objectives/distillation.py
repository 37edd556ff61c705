"""Hidden-state distillation: the outputs of the student's layers learn to equal those of the teacher's.

    hidden(s) = 1/P sum over pairs (i, j) of  1/K sum_k (W h_i(s) - u_j(s))_k^2          for every attended token s

h_i is the output of the student's i-th layer (0: the embeddings), u_j of the teacher's j-th, W one matrix for all pairs
(identity where there is none). Sources: Jiao et al., "TinyBERT" (arXiv 1909.10351), equations 7 and 8, with its uniform
map; Romero et al., "FitNets" (arXiv 1412.6550), for the projection.
Letters: B sequences, L tokens, H hidden size of the student, K of the teacher, P pairs.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from prunus.configs.specs.distillation import HiddenStates
from prunus.jobs.errors import ModelError

States = Sequence[torch.Tensor]
Pairs = Sequence[tuple[int, int]]
"""(layer of the student, layer of the teacher), from 1; 0 is the output of the embeddings."""


class HiddenMatch(nn.Module):
    """Mean squared error between hidden states of matched layers; the projection is trained along, never exported.

    Args:
        spec: Weight, map and projection.
        student, teacher: For their numbers of layers and hidden sizes.

    Raises:
        ModelError: A layer does not exist, or the number of layers is unknown.
    """

    def __init__(self, spec: HiddenStates, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        super().__init__()
        self.weight = spec.weight
        self.pairs = _checked_pairs(spec, _num_layers(student), _num_layers(teacher))
        size, teacher_size = student.config.hidden_size, teacher.config.hidden_size
        self.projection_lr = spec.projection_lr
        self.projection: nn.Linear | None = None
        if size != teacher_size or spec.projection == "always":
            self.projection = nn.Linear(size, teacher_size, bias=False)
            nn.init.eye_(self.projection.weight)  # it begins by comparing as it is, without a draw

    def forward(self, student: States, teacher: States, attended_BL: torch.Tensor) -> torch.Tensor:
        """The sum over attended tokens, a scalar in fp32.

        Args:
            student: ``hidden_states`` as transformers gives them: embeddings (B, L, H), then each layer's output.
            teacher: The teacher's, (B, L, K) each.
            attended_BL: 1 for tokens, 0 for padding.
        """
        total = torch.zeros((), device=attended_BL.device)
        for i, j in self.pairs:
            said_BLK = student[i] if self.projection is None else self.projection(student[i])
            error_BL = F.mse_loss(said_BLK.float(), teacher[j].float(), reduction="none").mean(2)
            total = total + (error_BL * attended_BL).sum()
        return total / len(self.pairs)


def uniform_pairs(num_layers: int, num_teacher_layers: int) -> tuple[tuple[int, int], ...]:
    """Match each layer of the student with the teacher's at the same depth: i with round(i T / S), halves up.

    4 of 12 layers: (1, 3), (2, 6), (3, 9), (4, 12).
    """
    depth = num_teacher_layers / num_layers
    return tuple((i, int(i * depth + 0.5)) for i in range(1, num_layers + 1))


def _num_layers(model: PreTrainedModel) -> int:
    found = getattr(model.config, "num_hidden_layers", None)
    if not isinstance(found, int):
        raise ModelError(f"{type(model).__name__} does not say its number of layers; leave distillation.hidden out")
    return found


def _checked_pairs(spec: HiddenStates, num_layers: int, num_teacher_layers: int) -> Pairs:
    if spec.layers == "uniform":
        return uniform_pairs(num_layers, num_teacher_layers)
    for i, j in spec.layers:
        if i > num_layers or j > num_teacher_layers:
            raise ModelError(
                f"distillation.hidden.layers: the pair [{i}, {j}] is beyond the student's {num_layers} or the "
                f"teacher's {num_teacher_layers} layers"
            )
    return spec.layers
