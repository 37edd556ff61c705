"""Units and their numbers: collected from the train transcripts, those of the starting checkpoint, or from a file."""

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2Processor

from prunus.configs.tasks.speech_data import TranscriptRules
from prunus.jobs.data.speech.speech_input import SpeechInput
from prunus.jobs.data.speech.units.transcripts import DELIMITER, Units
from prunus.jobs.errors import DataError

PAD, UNKNOWN = "<pad>", "<unk>"
_PADS, _UNKNOWNS = (PAD, "[PAD]", "<blank>"), (UNKNOWN, "[UNK]")
_NAME = "task.transcripts.vocabulary"


@dataclass(frozen=True)
class Vocabulary:
    """Units in order of their number.

    Attributes:
        tokens: All of them, special ones included.
        pad: The token of padding, which is CTC's blank.
        unknown: The token of units that are not in it.
        with_words: Whether words are told apart (characters), by ``|``.
    """

    tokens: tuple[str, ...]
    pad: str
    unknown: str
    with_words: bool

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, units: Units) -> npt.NDArray[np.int32]:
        """Return the numbers of units; those it does not have are unknown."""
        unknown = self._id_of[self.unknown]
        return np.fromiter((self._unit_ids.get(unit, unknown) for unit in units), np.int32, len(units))

    def lacks(self, unit: str) -> bool:
        """Tell whether a unit is none of the vocabulary's."""
        return unit not in self._unit_ids

    def is_special(self, token: str) -> bool:
        """Tell whether a token stands for no sound: padding, unknown, or written <like this>."""
        return token in {self.pad, self.unknown} or (token.startswith("<") and token.endswith(">"))

    def processor(self, inputs: SpeechInput) -> Wav2Vec2Processor:
        """Return what is saved beside the model: the feature extractor, and a tokenizer of these units."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "vocab.json"
            file.write_text(json.dumps(self._id_of, ensure_ascii=False), encoding="utf-8")
            tokenizer = Wav2Vec2CTCTokenizer(
                str(file),
                pad_token=self.pad,
                unk_token=self.unknown,
                # Without these two the tokenizer would add tokens that the model's head does not have.
                bos_token="<s>" if "<s>" in self._id_of else None,
                eos_token="</s>" if "</s>" in self._id_of else None,
                word_delimiter_token=DELIMITER if self.with_words else "",
            )
        return Wav2Vec2Processor(inputs.extractor, tokenizer)

    @cached_property
    def _id_of(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.tokens)}

    @cached_property
    def _unit_ids(self) -> dict[str, int]:
        """A transcript may hold the name of a special token as a phone: it is not meant."""
        return {token: number for token, number in self._id_of.items() if token not in {self.pad, self.unknown}}


def build_vocabulary(rules: TranscriptRules, inputs: SpeechInput, transcripts: Iterable[Units]) -> Vocabulary:
    """Return the vocabulary that the rules ask for; ``transcripts`` are those of the train split.

    Raises:
        DataError: The checkpoint has none, the file cannot be used, or the transcripts hold no unit.
    """
    with_words = rules.units == "characters"
    if rules.vocabulary == "model":
        return _of_model(inputs, with_words)
    if rules.vocabulary != "train":
        return _of_file(Path(rules.vocabulary), with_words)
    special = (PAD, UNKNOWN, DELIMITER) if with_words else (PAD, UNKNOWN)
    found = {unit for units in transcripts for unit in units}
    return Vocabulary((*special, *sorted(found - {*special, DELIMITER})), PAD, UNKNOWN, with_words)


def _of_model(inputs: SpeechInput, with_words: bool) -> Vocabulary:
    tokens, pad = inputs.tokens, inputs.config.pad_token_id
    if not tokens or pad is None or not 0 <= pad < len(tokens):
        raise DataError(
            f"{_NAME}: model, but the starting checkpoint has no units (it was only pre-trained, or saved without its "
            f"vocab.json); use train, or name a vocab.json"
        )
    unknown = next((token for token in _UNKNOWNS if token in tokens), None)
    return _checked(tokens, tokens[pad], unknown, with_words, "the starting checkpoint's vocabulary")


def _of_file(path: Path, with_words: bool) -> Vocabulary:
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{_NAME}: {path} cannot be read ({error.strerror}); write train, model, or the path of a vocab.json"
        ) from error
    except ValueError as error:
        raise DataError(f"{_NAME}: {path} is no JSON: {error}; give a vocab.json, unit -> number") from error
    if not isinstance(numbers, dict) or sorted(map(repr, numbers.values())) != sorted(map(repr, range(len(numbers)))):
        raise DataError(f"{_NAME}: {path} must map each unit to a number of its own, 0, 1, 2 and so on without a gap")
    tokens = tuple(sorted(numbers, key=lambda token: numbers[token]))
    pad = next((token for token in _PADS if token in numbers), None)
    if pad is None:
        raise DataError(f"{_NAME}: {path} has no {PAD!r}, the blank of CTC; add it")
    return _checked(tokens, pad, next((token for token in _UNKNOWNS if token in numbers), None), with_words, str(path))


def _checked(tokens: tuple[str, ...], pad: str, unknown: str | None, with_words: bool, name: str) -> Vocabulary:
    if unknown is None:
        raise DataError(f"{_NAME}: {name} has no {UNKNOWN!r} for units that are not in it; add it, or use train")
    if with_words and DELIMITER not in tokens:
        raise DataError(
            f"{_NAME}: {name} has no {DELIMITER!r} between words; add it, or set task.transcripts.units: phones"
        )
    return Vocabulary(tokens, pad, unknown, with_words)
