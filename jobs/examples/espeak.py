"""espeak-ng through ctypes: a text becomes samples and phones. The library and its data come from ``espeakng-loader``.

What it says of a text depends on all that the process said before (its noise and flutter run on, and nothing in its
interface sets them back). So: the same sequence of calls in a fresh process gives the same samples, and only that.
"""

import ctypes
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 22050
"""Hz; espeak-ng's own."""
VOLUME = 70
"""Of its usual 100, at which some variants touch the largest sample that fits."""

_RETRIEVAL, _CHARS_UTF8, _IPA = 2, 1, 2  # constants of speak_lib.h
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

# Phonemes without an IPA name come as espeak's own ASCII signs, most of them Kirshenbaum's.
_SIGNS = str.maketrans({"S": "ʃ", "Z": "ʒ", "N": "ŋ", "X": "χ", ":": "ː", "[": "\u032a", ".": "\u0322", '"': "\u0308"})
_SIGNS_OF = {
    "trk/ky": {"oe": "ø"},
    "sit/cmn": {"o-": "ɤ", "s.": "ʂ", "h": "ʰ", "ɜ": ""},  # ɜ is the 3 of a tone's number
}


@dataclass(frozen=True)
class Voice:
    """How a clip is spoken.

    Attributes:
        language: espeak's name of the language, for example ``roa/fr``.
        variant: espeak's name of the speaker, for example ``f2``.
        rate: Words a minute, 80 to 450.
        pitch: 0 to 99; 50 is the variant's own.
        pitch_range: 0 (monotone) to 99; 50 is the variant's own.
    """

    language: str
    variant: str
    rate: int
    pitch: int
    pitch_range: int


class _VoiceStruct(ctypes.Structure):
    """``espeak_VOICE`` of speak_lib.h, as far as it is read here."""

    _fields_ = [("name", ctypes.c_char_p), ("languages", ctypes.c_void_p), ("identifier", ctypes.c_char_p)]


class Espeak:
    """The library, initialised; one in a process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_Info.restype = ctypes.c_char_p
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_int]
        self._library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_VoiceStruct))
        self._chunks: list[bytes] = []
        self._callback = _CALLBACK(self._receive)  # kept: the library holds only its address
        data = str(espeakng_loader.get_data_path()).encode()
        if self._library.espeak_Initialize(_RETRIEVAL, 0, data, 0) != SAMPLE_RATE:
            raise RuntimeError(f"espeak-ng does not start with its data in {data.decode()}")
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice: Voice | None = None

    @property
    def version(self) -> str:
        return str(self._library.espeak_Info(None).decode())

    def languages(self) -> dict[str, str]:
        """Return language tag, in small letters -> the language to name in a ``Voice``; main dialects win."""
        best: dict[str, tuple[int, str]] = {}
        for voice in _until_null(self._library.espeak_ListVoices(None)):
            identifier, tags = voice.identifier.decode(), _read_languages(voice.languages)
            if not _has_dictionary(identifier, [tag for _, tag in tags]):
                continue
            for priority, tag in tags:
                best[tag] = min(best.get(tag, (priority, identifier)), (priority, identifier))
        return {tag: language for tag, (_, language) in sorted(best.items())}

    def say(self, text: str, voice: Voice) -> NDArray[np.int16]:
        """Return the samples of a text, mono."""
        self._use(voice)
        self._chunks.clear()
        data = text.encode() + b"\0"
        self._check(self._library.espeak_Synth(data, len(data), 0, 1, 0, _CHARS_UTF8, None, None), f"say {text!r}")
        return np.frombuffer(b"".join(self._chunks), dtype=np.int16)

    def ipa(self, text: str, voice: Voice) -> str:
        """Return what it would say, in espeak's notation; ``(en)`` marks a change of language."""
        self._use(voice)
        buffer = ctypes.create_string_buffer(text.encode())
        position, clauses = ctypes.c_void_p(ctypes.addressof(buffer)), []
        while position.value:
            clauses.append(self._library.espeak_TextToPhonemes(ctypes.byref(position), _CHARS_UTF8, _IPA).decode())
        return " ".join(clauses)

    def _use(self, voice: Voice) -> None:
        if voice == self._voice:
            return
        name = f"{voice.language}+{voice.variant}"
        self._check(self._library.espeak_SetVoiceByName(name.encode()), f"use the voice {name}")
        settings = {_RATE: voice.rate, _VOLUME: VOLUME, _PITCH: voice.pitch, _RANGE: voice.pitch_range}
        for parameter, value in settings.items():
            self._check(self._library.espeak_SetParameter(parameter, value, 0), f"set parameter {parameter} to {value}")
        self._voice = voice

    def _receive(self, samples: "ctypes._Pointer[ctypes.c_short]", num_samples: int, _events: int) -> int:
        if samples and num_samples > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * num_samples))
        return 0  # go on

    def _check(self, status: int, action: str) -> None:
        if status != 0:
            raise RuntimeError(f"espeak-ng {self.version} could not {action}: error {status}")


def phones(ipa: str, language: str) -> list[str]:
    """Cut espeak's notation into phones: a letter with the marks that follow it (tʲ, aː, ɑ̃) is one.

    Stress, tone and the ends of words are left out. Affricates and diphthongs are two phones.

    Args:
        ipa: From ``Espeak.ipa``.
        language: espeak's name; some languages have signs of their own.
    """
    for sign, letter in _SIGNS_OF.get(language, {}).items():
        ipa = ipa.replace(sign, letter)
    found: list[str] = []
    for character in unicodedata.normalize("NFD", re.sub("[ˈˌ]", "", ipa).translate(_SIGNS)):
        category = unicodedata.category(character)
        if category in {"Mn", "Lm"} and found:
            found[-1] += character
        elif category[0] == "L":
            found.append(character)
    return [unicodedata.normalize("NFC", phone) for phone in found]


def _has_dictionary(identifier: str, tags: list[str]) -> bool:
    """Whether the package brings it; espeak-ng lists a few languages (Faroese) of which it can say nothing."""
    data = Path(str(espeakng_loader.get_data_path()))
    named = re.findall(r"^dictionary\s+(\S+)", (data / "lang" / identifier).read_text(encoding="utf-8"), re.MULTILINE)
    return any((data / f"{name}_dict").is_file() for name in [*named, *(tag.split("-")[0] for tag in tags)])


def _until_null(pointers: "ctypes._Pointer[ctypes._Pointer[_VoiceStruct]]") -> list[_VoiceStruct]:
    found: list[_VoiceStruct] = []
    while pointers[len(found)]:
        found.append(pointers[len(found)].contents)
    return found


def _read_languages(address: int) -> list[tuple[int, str]]:
    """Read a list of (priority byte, zero-ended tag), ended by a zero byte; a low priority is a main dialect."""
    found: list[tuple[int, str]] = []
    while priority := ctypes.string_at(address, 1)[0]:
        tag = ctypes.string_at(address + 1)
        found.append((priority, tag.decode()))
        address += 2 + len(tag)
    return found
