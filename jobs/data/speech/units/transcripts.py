"""From a transcript to the units that are learned: pure functions on text, with rules per script and language.

Characters: NFC; lower case; whatever is no letter, mark, number or kept sign becomes a space, and spaces become ``|``.
Units are code points, in logical order (Arabic and Hebrew: the first spoken is the first). Marks that do not compose
(Arabic vowel signs, Indic vowels) are units of their own. Phones: what stands between spaces.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from itertools import pairwise

from prunus.configs.tasks.speech_data import TranscriptRules
from prunus.configs.values.languages import primary_code
from prunus.jobs.errors import DataError

DELIMITER = "|"
"""Unit between two words."""

Units = tuple[str, ...]
ToUnits = Callable[[str], Units]

_DOTLESS_I = frozenset({"tr", "tur", "az", "aze", "azj", "crh", "gag", "tt", "tat"})
"""Turkish, Azerbaijani, Crimean Tatar, Gagauz and Tatar, in Latin letters: ``I`` is the capital of a dotless letter,
and the dotted capital that of ``i``."""
_TATWEEL = "\u0640"  # a stroke that lengthens an Arabic word on paper
_WORD_APOSTROPHE = re.compile(r"(?<=\w)[\u2019\uff07](?=\w)")
# No sound and no ink of their own, though Unicode counts them among letters and marks: joiners and fillers, variation
# selectors, and the marks that draw a circle or a key around a sign.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u20dd-\u20e0\u20e2-\u20e4\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
_UNSPACED = (  # Chinese and Japanese
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_GAP = re.compile(f"(?<=[{_UNSPACED}]) (?=[{_UNSPACED}])")
_SPACES = re.compile(r"\s+")


def to_units(rules: TranscriptRules, language: str) -> ToUnits:
    """Return the function that turns a transcript of this language into units.

    Raises:
        DataError: ``keep`` holds the sign between words.
    """
    code = primary_code(language)
    if rules.units == "phones":
        return phones
    if DELIMITER in rules.keep:
        raise DataError(
            f"task.transcripts.keep: {rules.keep!r} holds {DELIMITER!r}, which stands between words; leave it out"
        )
    keep = frozenset(unicodedata.normalize("NFC", rules.keep)) - {" "}

    def characters(text: str) -> Units:
        return tuple(normalise(text, code, lowercase=rules.lowercase, keep=keep).replace(" ", DELIMITER))

    return characters


def normalise(text: str, code: str, *, lowercase: bool, keep: frozenset[str]) -> str:
    """Return letters, marks, numbers and kept signs, with single spaces between words."""
    text = _clean(text).replace(_TATWEEL, "")
    if "'" in keep:
        text = _WORD_APOSTROPHE.sub("'", text)
    if lowercase:
        text = unicodedata.normalize("NFC", _lower(text, code))
    text = text.translate(_spacing(keep))
    # Chinese and Japanese write no spaces: one that is left stood for a comma.
    return _GAP.sub("", _SPACES.sub(" ", text).strip())


def phones(text: str) -> Units:
    """Return what stands between spaces; word boundaries are left out, case (it tells phones apart) is kept."""
    return tuple(phone for phone in _clean(text).split() if phone != DELIMITER)


def num_repeats(units: Units) -> int:
    """Return how many units equal the one before: CTC needs a blank, so a frame, between the two."""
    return sum(a == b for a, b in pairwise(units))


class _Table(dict[int, str | None]):
    """A table for ``str.translate`` that asks ``rule`` of each sign once: None drops it."""

    def __init__(self, rule: Callable[[str], str | None]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, code_point: int) -> str | None:
        self[code_point] = self._rule(chr(code_point))
        return self[code_point]


@cache
def _spacing(keep: frozenset[str]) -> _Table:
    """Letters, marks, numbers and kept signs stay, all others become spaces."""
    return _Table(lambda sign: sign if sign in keep or unicodedata.category(sign)[0] in "LMN" else " ")


_DROPPED = _Table(lambda sign: None if unicodedata.category(sign)[0] == "C" or _INVISIBLE.match(sign) else sign)
"""Control, zero-width and direction signs go."""


def _clean(text: str) -> str:
    """Compose marks (NFC), drop what is neither seen nor heard; every kind of white space becomes a space."""
    return unicodedata.normalize("NFC", _SPACES.sub(" ", text).translate(_DROPPED))


def _lower(text: str, code: str) -> str:
    if code in _DOTLESS_I and not any("\u0400" <= sign <= "\u052f" for sign in text):  # Latin, not Cyrillic
        text = text.replace("I\u0307", "i").replace("\u0130", "i").replace("I", "\u0131")
    return text.lower()
