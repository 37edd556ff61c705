"""Sequence classification: accuracy and macro F1 by scikit-learn."""

import numpy as np
from sklearn.metrics import accuracy_score, f1_score
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from prunus.jobs.data.pipeline.batches import EvalBatches
from prunus.jobs.engine.engine import Engine
from prunus.jobs.objectives.sequences import SequenceObjective
from prunus.jobs.ranks import Ranks
from prunus.jobs.tasks.base import Task, to_device


class ClassificationTask(Task):
    """Assign one label to a sentence or a pair; ``eval/loss`` is nats per sequence."""

    auto_class = AutoModelForSequenceClassification
    objective_class = SequenceObjective

    def model_overrides(self) -> dict[str, object]:
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: index for index, label in enumerate(self.labels)},
            "problem_type": "single_label_classification",
        }

    def evaluate(self, engine: Engine, batches: EvalBatches, ranks: Ranks) -> dict[str, float]:
        predicted: list[int] = []
        expected: list[int] = []
        loss_sum = 0.0
        for batch in batches:
            moved = to_device(batch, ranks.device)
            real_B = moved.pop("weight") > 0
            _, _, logits_BC = engine.measure(moved)
            chosen_BC, labels_B = logits_BC.float()[real_B], moved["labels"][real_B]
            loss_sum += float(F.cross_entropy(chosen_BC, labels_B, reduction="sum"))
            predicted += chosen_BC.argmax(1).tolist()
            expected += labels_B.tolist()
        return _metrics(ranks.gather((predicted, expected, loss_sum)), len(self.labels))


def _metrics(parts: list[tuple[list[int], list[int], float]], num_labels: int) -> dict[str, float]:
    predicted = np.concatenate([np.asarray(part[0], dtype=int) for part in parts])
    expected = np.concatenate([np.asarray(part[1], dtype=int) for part in parts])
    labels = list(range(num_labels))
    return {
        "eval/loss": sum(part[2] for part in parts) / max(1, len(expected)),
        "eval/accuracy": float(accuracy_score(expected, predicted)),
        "eval/f1_macro": float(f1_score(expected, predicted, labels=labels, average="macro", zero_division=0.0)),
    }
