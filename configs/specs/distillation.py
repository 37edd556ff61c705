"""Learn from a teacher."""

from typing import Literal, Self

from pydantic import Field, model_validator

from prunus.configs.values.base import Fraction, Strict
from prunus.configs.values.sources import Source


class Distillation(Strict):
    """Learn from a teacher's logits (Hinton et al., arXiv 1503.02531; Prune OFA section 3)."""

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

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if self.task_weight == 0.0 and self.teacher_weight == 0.0:
            raise ValueError("task_weight and teacher_weight are both 0: nothing would be learned")
        return self
