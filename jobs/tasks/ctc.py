"""Speech recognition with CTC: error rates by greedy decoding, counted by jiwer over all clips and per language."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import jiwer
import numpy as np
import numpy.typing as npt
from transformers import AutoModelForCTC, PreTrainedModel

from prunus.configs.tasks.ctc import CTC
from prunus.jobs.data.pipeline.batches import EvalBatches, TaskData
from prunus.jobs.engine.engine import Engine
from prunus.jobs.objectives.base import Objective, Weights
from prunus.jobs.objectives.ctc import CTCObjective
from prunus.jobs.objectives.distillation import HiddenMatch
from prunus.jobs.objectives.projection_loss import IGNORED
from prunus.jobs.ranks import Ranks
from prunus.jobs.tasks.base import Task, heard_per_second, to_device

_UNKNOWN_SAID, _UNKNOWN_MEANT = "\ufffe", "\ufffd"
"""Never equal: a unit outside the vocabulary is an error, whatever the model says there."""
_COLLAPSED = 0.95
"""Share of clips for which nothing is said, from which on a model counts as collapsed to blanks."""


class CTCTask(Task):
    """``eval/cer``, ``eval/wer`` (of phones ``eval/per``): errors / units meant; ``eval/loss``: nats per unit;
    ``eval/empty``: share of the clips for which the model says nothing."""

    auto_class = AutoModelForCTC
    spec: CTC

    def __init__(self, spec: CTC, data: TaskData) -> None:
        super().__init__(spec, data)
        # A vocabulary from elsewhere has its own names and numbers for these.
        self._tokenizer: Any = data.processor.tokenizer  # type: ignore[attr-defined]
        self._blank = int(self._tokenizer.pad_token_id)
        self.throughput = heard_per_second(data.processor)

    def model_overrides(self) -> dict[str, Any]:
        masks = self.spec.spec_augment
        return {
            "vocab_size": len(self.labels),
            "pad_token_id": self._blank,
            "ctc_loss_reduction": "mean",
            "ctc_zero_infinity": True,
            "layerdrop": 0.0,  # ranks that drop different layers cannot exchange gradients
            # Ours are drawn with the batch (``jobs.data``); these are for whoever trains the exported model on.
            "mask_time_prob": masks.time_prob if masks else 0.0,
            "mask_time_length": masks.time_length if masks else 10,
            "mask_feature_prob": masks.channel_prob if masks else 0.0,
            "mask_feature_length": masks.channel_length if masks else 64,
        }

    def prepare(self, student: PreTrainedModel) -> None:
        if self.spec.freeze_feature_encoder:
            student.freeze_feature_encoder()
        masks, embed = self.spec.spec_augment, getattr(student.base_model, "masked_spec_embed", None)
        if embed is not None and (masks is None or masks.time_prob == 0.0):
            embed.requires_grad_(False)  # never used

    def build_objective(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        weights: Weights,
        autocast: bool,
        hidden: HiddenMatch | None = None,
    ) -> Objective:
        assert teacher is None and hidden is None, "checked by JobSpec"
        return CTCObjective(student, weights, autocast, self.spec.average, self.spec.freeze_updates)

    def evaluate(self, engine: Engine, batches: EvalBatches, ranks: Ranks) -> dict[str, float]:
        said: list[str] = []
        meant: list[str] = []
        groups: list[int] = []
        total: Counter[str] = Counter()
        loss = 0.0
        for batch in batches:
            moved = to_device(batch, ranks.device)
            real_B = batch["weight"] > 0
            _, sums, (best_BT, frames_B) = engine.measure(moved)
            loss += float(sums[0])
            total["units"] += int((batch["labels"][real_B] != IGNORED).sum())
            for row in real_B.nonzero().view(-1).tolist():
                said.append(
                    self._text(collapse(best_BT[row, : frames_B[row]].cpu().numpy(), self._blank), _UNKNOWN_SAID)
                )
                units_U = batch["labels"][row]
                meant.append(self._text(units_U[units_U != IGNORED].numpy(), _UNKNOWN_MEANT))
                groups.append(int(batch["group"][row]))
        total["clips"], total["empty"] = len(said), sum(not text.strip() for text in said)
        phones = self.spec.transcripts.units == "phones"
        errors = []
        for group in range(max(1, len(self.eval_groups))):
            rows = [row for row, own in enumerate(groups) if own == group]
            errors.append(count_errors([said[row] for row in rows], [meant[row] for row in rows], phones))
        parts = ranks.gather((loss, total, errors))
        counted: list[Counter[str]] = [sum((part[2][g] for part in parts), Counter()) for g in range(len(errors))]
        return self._metrics(sum(part[0] for part in parts), sum((part[1] for part in parts), Counter()), counted)

    def _metrics(self, loss: float, total: Counter[str], errors: list[Counter[str]]) -> dict[str, float]:
        found = {
            "eval/loss": loss / max(1, total["units"]),
            "eval/empty": total["empty"] / max(1, total["clips"]),
        }
        found |= _rates(sum(errors, Counter()), "")
        if len(self.eval_groups) > 1:
            for name, counts in zip(self.eval_groups, errors, strict=True):
                found |= _rates(counts, f"/{name}")
        return found

    def _text(self, units: npt.NDArray[np.int64], unknown: str) -> str:
        """Units as text: phones between spaces, characters joined, a space for each word delimiter."""
        named = (self.labels[number] for number in units)
        words = [unknown if unit == self._tokenizer.unk_token else unit for unit in named]
        if self.spec.transcripts.units == "phones":
            return " ".join(words)
        return "".join(" " if word == self._tokenizer.word_delimiter_token else word for word in words).strip()

    def warning(self, metrics: dict[str, float]) -> str:
        if metrics.get("eval/empty", 0.0) < _COLLAPSED:
            return ""
        sparser = "lower the sparsity, " if metrics.get("sparsity/prunable") else ""
        return (
            f"the model says nothing for {100 * metrics['eval/empty']:.0f}% of the held-out clips: it has collapsed to "
            f"blanks, where CTC stays at first; train longer, raise train.lr.peak, {sparser}or look whether "
            "transcripts and clips belong together"
        )


def collapse(best_T: npt.NDArray[np.int64], blank: int) -> npt.NDArray[np.int64]:
    """Greedy CTC decoding: repeats become one, then blanks go (Graves 2006, section 3.1)."""
    changes = np.ones(len(best_T), dtype=bool)
    changes[1:] = best_T[1:] != best_T[:-1]
    once = best_T[changes]
    said: npt.NDArray[np.int64] = once[once != blank]
    return said


def count_errors(said: Sequence[str], meant: Sequence[str], phones: bool) -> Counter[str]:
    """Errors (substitutions, deletions, insertions) and units meant, of words and characters, or of phones."""
    counts: Counter[str] = Counter()
    if not meant:
        return counts
    words = jiwer.process_words(list(meant), list(said))
    kind = "phones" if phones else "words"
    counts[f"{kind} wrong"] = words.substitutions + words.deletions + words.insertions
    counts[kind] = words.hits + words.substitutions + words.deletions
    if not phones:
        letters = jiwer.process_characters(list(meant), list(said))
        counts["characters wrong"] = letters.substitutions + letters.deletions + letters.insertions
        counts["characters"] = letters.hits + letters.substitutions + letters.deletions
    return counts


def _rates(counts: Counter[str], suffix: str) -> dict[str, float]:
    names = {"words": "wer", "characters": "cer", "phones": "per"}
    return {
        f"eval/{rate}{suffix}": counts[f"{kind} wrong"] / counts[kind] for kind, rate in names.items() if counts[kind]
    }
