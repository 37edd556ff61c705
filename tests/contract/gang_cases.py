"""The contract's table: an example of every registered method, and how a case becomes a launch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from prunus.configs import JobSpec, Launch, ResolvedSource, __version__
from tests.tiny_inputs import TinyInputs

needs_fp16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_fp16_supported(), reason="this CPU has no fp16 arithmetic (avx512_fp16, amx_fp16)"
)
STRATEGIES = ("ddp", "zero0", "zero1", "zero2", "zero3")
FEW = ("ddp", "zero2", "zero3")
"""Every kind of shard once; the rest of a table runs with ``make chaos``."""
NUM_STEPS = 8
BATCH_SIZE = 12
"""Divisible by micro-batches of 2 on 1, 2 and 3 ranks."""


@dataclass(frozen=True)
class Example:
    """How the contract suite runs one method.

    Attributes:
        spec: The method's part of a job's spec.
        sparsity: What every prunable tensor must reach.
        from_sparse: Whether it starts from the sparse checkpoint.
        nothing: A spec of it that removes nothing and must equal ``dense`` to the bit; None: it refuses such a job.
        dead: Adam's moments that are zero outside the mask.
        frozen: Weights that it leaves as they are.
        result: Kind of what it leaves.
    """

    spec: dict[str, Any]
    sparsity: float
    from_sparse: bool = False
    nothing: dict[str, Any] | None = None
    dead: tuple[str, ...] = ("exp_avg", "exp_avg_sq")
    frozen: tuple[str, ...] = ()
    result: str = "masked"


EXAMPLES: dict[str, Example] = {
    "dense": Example({"name": "dense"}, 0.0, nothing={"name": "dense"}, result="dense"),
    "gradual_magnitude": Example(
        {"name": "gradual_magnitude", "final_sparsity": 0.9, "update_every": 2},
        0.9,
        nothing={"name": "gradual_magnitude", "final_sparsity": 0.0, "update_every": 2},
    ),
    "locked": Example({"name": "locked"}, 0.75, from_sparse=True),
    "movement": Example(
        {"name": "movement", "final_sparsity": 0.8, "growth_window": [0.25, 0.75]},
        0.8,
        nothing={"name": "movement", "final_sparsity": 0.0, "freeze_embeddings": False},
        dead=("exp_avg",),
        frozen=tuple(f"bert.embeddings.{table}_embeddings.weight" for table in ("word", "position", "token_type")),
    ),
    "parp": Example(
        {
            "name": "parp",
            "final_sparsity": 0.6,
            "initial_sparsity": 0.3,
            "update_every": 3,
            "scope": "per_layer",  # so that each tensor's share is known
            "prunable": {"biases": False},
        },
        0.6,
        nothing={"name": "parp", "final_sparsity": 0.0, "update_every": 3},
    ),
}


def cell(*values: Any, always: bool) -> Any:
    """One cell of a table of cases; left to ``make chaos`` unless it runs always."""
    name = "-".join(map(str, values))
    return pytest.param(*values, id=name, marks=() if always else pytest.mark.chaos)


STRATEGY_CELLS = [cell(strategy, always=strategy in FEW) for strategy in STRATEGIES]

ONE_SHOT = {
    "name": "gradual_magnitude",
    "initial_sparsity": 0.6,
    "final_sparsity": 0.6,
    "growth_window": [0.0, 0.0],
    "selection_window": [0.0, 0.0],
}
"""Removes 60% once, before the first step: its masks are a function of the starting weights alone."""


@dataclass(frozen=True)
class Case:
    """One job of one gang."""

    method: dict[str, Any]
    strategy: str = "zero2"
    num_ranks: int = 1
    precision: str = "fp32"
    from_sparse: bool = False
    dropout: float = 0.0
    train: tuple[tuple[str, Any], ...] = ()
    distils: bool = False
    data: tuple[tuple[str, Any], ...] = ()
    mlflow_uri: str | None = None
    job: str = "case"
    num_gpus: int = 0
    placement: str = "pack"

    def spec(self, tiny: TinyInputs) -> JobSpec:
        """The job's spec."""
        source = str(tiny.sparse if self.from_sparse else tiny.model)
        text = {"files": [str(tiny.text)]}
        sizes = {"sequence_length": 16, "max_eval_sequences": 7}
        dropout = {"hidden_dropout_prob": self.dropout, "attention_probs_dropout_prob": self.dropout}
        return JobSpec.model_validate(
            {
                "name": self.job,
                "task": {"name": "masked_lm", "data": {"train": text, "eval": text, **sizes, **dict(self.data)}},
                "model": {"from": source, "config": dropout},
                "method": self.method,
                "distillation": {"teacher": str(tiny.model)} if self.distils else None,
                "train": {
                    "num_steps": NUM_STEPS,
                    "batch_size": BATCH_SIZE,
                    "micro_batch_size": 2,
                    "lr": {"peak": 1e-3},
                    "log_every": 1,
                    **dict(self.train),
                },
                "engine": {"strategy": self.strategy, "precision": self.precision},
                "resources": {
                    "num_ranks": self.num_ranks,
                    "gpus_per_rank": self.num_gpus,
                    "placement": self.placement,
                },
            }
        )

    def launch(self, tiny: TinyInputs, job_dir: Path, cache_dir: Path, attempt: int) -> Launch:
        """What the service would hand to the gang."""
        spec = self.spec(tiny)
        return Launch(
            prunus_version=__version__,
            job_id=self.job,
            job_name=self.job,
            attempt=attempt,
            attempt_id=f"{self.job}-a{attempt}",
            token=str(attempt),
            job_dir=str(job_dir),
            cache_dir=str(cache_dir),
            spec=spec,
            sources={
                role: ResolvedSource(reference=reference, kind="directory", location=reference)
                for role, reference in spec.sources.items()
            },
            mlflow_uri=self.mlflow_uri,
        )
