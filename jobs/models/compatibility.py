"""Whether student, teacher, data and units belong together."""

from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from prunus.configs.values.wording import listed
from prunus.jobs.data.speech.speech_input import SpeechInput
from prunus.jobs.errors import ModelError
from prunus.jobs.models.inputs import tokenizer_digest


def check_same_tokenizer(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, reference: str) -> None:
    """Refuse a teacher whose logits mean other tokens.

    Raises:
        ModelError: The vocabularies differ.
    """
    if tokenizer_digest(student) != tokenizer_digest(teacher):
        raise ModelError(
            f"distillation.teacher {reference} has another tokenizer ({len(teacher)} tokens) than the model "
            f"({len(student)} tokens): its logits mean other words; use a teacher with the model's tokenizer"
        )


def check_same_labels(labels: tuple[str, ...], teacher: PreTrainedModel, reference: str) -> None:
    """Refuse a teacher whose classes are other ones, or in another order; no effect for tasks without classes.

    Raises:
        ModelError: The classes differ.
    """
    theirs = tuple(str(teacher.config.id2label[i]) for i in range(len(teacher.config.id2label)))
    if labels and theirs != labels:
        raise ModelError(
            f"distillation.teacher {reference} has the classes {list(theirs)}, the data has {list(labels)}; use a "
            "teacher of the same task, or give task.labels in the teacher's order"
        )


def check_same_units(trained: SpeechInput, labels: tuple[str, ...], reference: str) -> None:
    """Refuse a head that says other units, or the same ones in another order; no effect for tasks without units.

    Raises:
        ModelError: The vocabularies differ.
    """
    has_head = any("CTC" in name for name in trained.config.architectures or ())
    if not labels or not has_head or trained.tokens in {(), labels}:
        return
    missing, other = set(labels) - set(trained.tokens), set(trained.tokens) - set(labels)
    raise ModelError(
        f"{reference} has a head for other units: it lacks {_units(missing)} and has {_units(other)} beside "
        "the data's; begin with a new head (model: {head: new}), or learn its units (transcripts: {vocabulary: model})"
    )


def _units(units: set[str]) -> str:
    return listed([repr(unit) for unit in sorted(units)], 5)
