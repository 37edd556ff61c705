"""Pre-training of wav2vec 2.0: how well, and among how many codes, hidden frames are told from others."""

from typing import Any

import torch
from transformers import AutoModelForPreTraining, PreTrainedModel

from prunus.configs.tasks.wav2vec2_pretraining import Wav2Vec2Pretraining
from prunus.jobs.data.pipeline.batches import EvalBatches, TaskData
from prunus.jobs.engine.engine import Engine
from prunus.jobs.errors import ModelError
from prunus.jobs.objectives.base import Objective, Weights
from prunus.jobs.objectives.distillation import HiddenMatch
from prunus.jobs.objectives.wav2vec2_pretraining import PretrainingObjective, diversity, perplexity
from prunus.jobs.ranks import Ranks
from prunus.jobs.tasks.base import Task, heard_per_second, to_device

_FEW_CODES = 1.25
"""Codes in use per group, up to which a codebook counts as collapsed."""
_NO_LOSS = 0.01
"""Contrastive loss in nats, up to which there is nothing to tell apart. 100 equal chances: 4.6."""


class PretrainingTask(Task):
    """``eval/contrastive``: nats per masked frame; ``eval/accuracy``: share of the masked frames whose true code wins;
    ``eval/perplexity_codes``: codes in use over the split, of G V in all; ``eval/diversity``: share not in use;
    ``eval/loss``: contrastive + ``diversity_weight`` x diversity. Codes are the best ones, without noise."""

    auto_class = AutoModelForPreTraining
    spec: Wav2Vec2Pretraining

    def __init__(self, spec: Wav2Vec2Pretraining, data: TaskData) -> None:
        super().__init__(spec, data)
        self.throughput = heard_per_second(data.processor)

    def model_overrides(self) -> dict[str, Any]:
        return {
            "apply_spec_augment": True,  # else the model would not hide the frames that the batch masks
            "mask_time_prob": self.spec.time_prob,  # above 0: there is a vector for masked frames
            "mask_time_length": self.spec.time_length,
            "mask_feature_prob": 0.0,
            "num_negatives": self.spec.num_negatives,
            "contrastive_logits_temperature": self.spec.contrastive_temperature,
            "diversity_loss_weight": self.spec.diversity_weight,
            "layerdrop": 0.0,  # ranks that drop different layers cannot exchange gradients
        }

    def prepare(self, student: PreTrainedModel) -> None:
        if student.config.model_type != "wav2vec2" or student.config.add_adapter:
            raise ModelError(
                f"{type(student).__name__} (add_adapter: {getattr(student.config, 'add_adapter', False)}) is not the "
                "plain wav2vec 2.0 that task wav2vec2_pretraining trains; begin from a model of type wav2vec2, XLS-R "
                "included"
            )

    def build_objective(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        weights: Weights,
        autocast: bool,
        hidden: HiddenMatch | None = None,
    ) -> Objective:
        assert teacher is None and hidden is None, "checked by JobSpec"
        self._groups = student.config.num_codevector_groups
        return PretrainingObjective(student, weights, autocast, self.spec)

    def evaluate(self, engine: Engine, batches: EvalBatches, ranks: Ranks) -> dict[str, float]:
        config = engine.objective.student.config
        total = torch.zeros(3, dtype=torch.float64, device=ranks.device)
        chosen_GV = torch.zeros(
            config.num_codevector_groups, config.num_codevectors_per_group, dtype=torch.float64, device=ranks.device
        )
        for batch in batches:
            moved = to_device(batch, ranks.device)
            _, _, (contrastive, wins, counts_GV) = engine.measure(moved)
            total += torch.stack([contrastive.double(), wins.double(), engine.objective.counts(moved)[0]])
            chosen_GV += counts_GV
        contrastive, wins, frames = ranks.sum(total).clamp(min=0).tolist()
        share_GV = ranks.sum(chosen_GV) / max(1.0, frames)
        unused = float(diversity(share_GV))
        return {
            "eval/loss": contrastive / max(1.0, frames) + self.spec.diversity_weight * unused,
            "eval/contrastive": contrastive / max(1.0, frames),
            "eval/diversity": unused,
            "eval/perplexity_codes": float(perplexity(share_GV)),
            "eval/accuracy": wins / max(1.0, frames),
        }

    def warning(self, metrics: dict[str, float]) -> str:
        if "eval/contrastive" not in metrics:
            return ""
        codes, loss = metrics["eval/perplexity_codes"], metrics["eval/contrastive"]
        if codes > _FEW_CODES * self._groups and loss > _NO_LOSS:
            return ""
        return (
            f"the quantiser has collapsed: {codes:.1f} codes are in use over {self._groups} groups and the contrastive "
            f"loss is {loss:.3f}, so that there is nothing to tell apart; raise task.diversity_weight, lower "
            "train.lr.peak or lengthen train.lr.warmup, or take longer and more varied clips"
        )
