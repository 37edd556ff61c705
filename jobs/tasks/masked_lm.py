"""Masked language modelling (Devlin et al., arXiv 1810.04805, section 3.1)."""

import math

import torch
from transformers import AutoModelForMaskedLM

from prunus.jobs.data.pipeline.batches import EvalBatches
from prunus.jobs.engine.engine import Engine
from prunus.jobs.objectives.projection_loss import IGNORED
from prunus.jobs.objectives.tokens import TokenObjective
from prunus.jobs.ranks import Ranks
from prunus.jobs.tasks.base import Task, to_device


class MaskedLMTask(Task):
    """Predict the masked tokens; ``eval/loss`` is nats per predicted token, ``eval/perplexity`` its exponential."""

    auto_class = AutoModelForMaskedLM
    objective_class = TokenObjective

    def evaluate(self, engine: Engine, batches: EvalBatches, ranks: Ranks) -> dict[str, float]:
        total = torch.zeros(2, dtype=torch.float64, device=ranks.device)
        for batch in batches:
            moved = to_device(batch, ranks.device)
            weight_B1 = moved.pop("weight").view(-1, 1)
            moved["labels"] = torch.where(weight_B1 > 0, moved["labels"], IGNORED)
            _, sums, _ = engine.measure(moved)
            total += torch.stack([sums[0].double(), (moved["labels"] != IGNORED).sum().double()])
        loss = float(ranks.sum(total)[0] / total[1].clamp(min=1))
        return {"eval/loss": loss, "eval/perplexity": math.exp(min(loss, 50.0))}
