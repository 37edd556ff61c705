"""Everything that one job trains with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunus.configs.specs.job import JobSpec
from prunus.jobs.data.pipeline.batches import TaskData
from prunus.jobs.engine.engine import Engine
from prunus.jobs.methods import Method
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.masked_weights import MaskedWeights
from prunus.jobs.tasks import Task
from prunus.jobs.tracking.heartbeat import Reporter
from prunus.jobs.tracking.tracker import Tracker
from prunus.jobs.training.curves import History

_OPTIMIZER = {"seed", "lr", "weight_decay", "betas", "eps", "max_grad_norm"}
"""Parts of ``train`` that a resumed job must share with the one that wrote the checkpoint."""


@dataclass
class Training:
    """Everything that one job trains with.

    Attributes:
        num_steps: Optimizer steps in all.
        lineage: What each source (model, teacher, mask) was, with the digest of its manifest.
        checkpoints: Directory of the checkpoints.
        attempt_id: Id of this attempt, for files that lie aside.
        tracker: On rank 0 only.
        guard: Raises StaleAttempt once a newer attempt has taken the job over; called before each write.
    """

    spec: JobSpec
    num_steps: int
    lineage: dict[str, str]
    task: Task
    data: TaskData
    engine: Engine
    weights: MaskedWeights | None
    method: Method[Any]
    ranks: Ranks
    checkpoints: Path
    attempt_id: str
    tracker: Tracker | None
    reporter: Reporter
    guard: Callable[[], None]
    history: History = field(default_factory=list)

    def lr_factor(self, step: int) -> float:
        """Share of the highest learning rate at optimizer step ``step``."""
        return self.method.start.lr_factor(step)

    @property
    def facts(self) -> dict[str, Any]:
        """What a checkpoint and its job must agree on."""
        spec = self.spec
        return {
            "num_ranks": self.ranks.world_size,
            "strategy": spec.engine.strategy,
            "precision": spec.engine.precision,
            "num_steps": self.num_steps,
            "batch_size": spec.train.batch_size,
            "data": self.data.digest,
            "method": spec.method.model_dump(mode="json"),
            "sources": self.lineage,
            "model": spec.model.model_dump(mode="json", by_alias=True),
            "distillation": spec.distillation.model_dump(mode="json") if spec.distillation else None,
            "optimizer": spec.train.model_dump(mode="json", include=_OPTIMIZER),
        }
