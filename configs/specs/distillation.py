"""Learn from a teacher."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from prunus.configs.values.base import Fraction, Strict
from prunus.configs.values.sources import Source


class HiddenStates(Strict):
    """Learn from the outputs of a teacher's layers (TinyBERT, arXiv 1909.10351, equations 7 and 8)."""

    weight: float = Field(default=1.0, gt=0.0)
    """Weight of the term beside task and logits: the mean squared error per hidden unit, averaged over attended tokens
    and matched layers. TinyBERT: 1."""
    layers: Literal["uniform"] | tuple[tuple[NonNegativeInt, NonNegativeInt], ...] = "uniform"
    """Which layers are matched. ``uniform``: each layer of the student with the teacher's at the same depth (4 of 12
    layers: 3, 6, 9, 12). Or pairs [student, teacher], counted from 1; 0 is the output of the embeddings."""
    projection: Literal["if_needed", "always"] = "if_needed"
    """A matrix from the student's hidden size to the teacher's, one for all layers, trained along and not exported.
    ``if_needed``: only where the two sizes differ."""
    projection_lr: float | None = Field(default=None, gt=0.0)
    """Highest learning rate of the projection, which begins far from where it ends; it follows the schedule of
    ``train.lr``, without decay. None: that of all weights."""

    @model_validator(mode="after")
    def _some_layer(self) -> Self:
        if not self.layers:
            raise ValueError("layers is empty: no layer would be matched; write uniform, or pairs [student, teacher]")
        return self


class Distillation(Strict):
    """Learn from a teacher: from its logits (Hinton et al., arXiv 1503.02531; Prune OFA section 3), and from its
    hidden states if asked for."""

    teacher: Source
    """The teacher's model: job:NAME, models:/NAME@ALIAS, a directory, or a hub id."""
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
    hidden: HiddenStates | None = None
    """Learn from the teacher's hidden states too; None: from its logits alone."""

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if self.task_weight == 0.0 and self.teacher_weight == 0.0 and self.hidden is None:
            raise ValueError("task_weight and teacher_weight are both 0: nothing would be learned")
        return self
