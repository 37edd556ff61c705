"""Jobs of speech tasks for gangs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.configs import JobSpec
from tests.contract.gang_cases import Case
from tests.tiny_inputs import TinyInputs

NUM_STEPS = 8


@dataclass(frozen=True)
class SpeechCase(Case):
    """One job of task ctc; ``root`` is where ``tones`` wrote."""

    root: str = ""
    model: str = "model"
    task: tuple[tuple[str, Any], ...] = ()
    head: str = "keep"
    languages: tuple[str, ...] = ("es",)

    def spec(self, tiny: TinyInputs) -> JobSpec:
        del tiny
        sources = {
            split: [
                {"files": [f"{self.root}/{language}/{split}.tsv"], "language": language} for language in self.languages
            ]
            for split in ("train", "test")
        }
        data = {"train": sources["train"], "eval": sources["test"], **dict(self.data)}
        source = self.model if Path(self.model).is_absolute() else f"{self.root}/{self.model}"
        batches = {} if "batch_seconds" in dict(self.train) else {"batch_size": 12, "micro_batch_size": 2}
        return JobSpec.model_validate(
            {
                "name": self.job,
                "task": {"name": "ctc", "data": data, **dict(self.task)},
                "model": {"from": source, "head": self.head, "config": {"activation_dropout": self.dropout}},
                "method": self.method,
                "train": {
                    "num_steps": NUM_STEPS, "weight_decay": 0.0, "log_every": 1,
                    "lr": {"peak": 1e-3, "schedule": "tri_stage", "warmup": 0.1}, **batches, **dict(self.train),
                },
                "engine": {"strategy": self.strategy, "precision": self.precision},
                "resources": {"num_ranks": self.num_ranks},
            }
        )  # fmt: skip
