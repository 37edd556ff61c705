"""From transcripts to units: scripts, cases and signs."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.configs.tasks.speech_data import TranscriptRules
from prunus.jobs.data.speech.units.transcripts import num_repeats, to_units
from prunus.jobs.errors import DataError


def _units(text: str, language: str = "", **rules: Any) -> str:
    return "".join(to_units(TranscriptRules(**rules), language)(text))


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "Hello, World!", "hello|world"),
        ("en", "  It's\t5 o’clock…  ", "it's|5|o'clock"),  # a typographic apostrophe inside a word is one
        ("en", "‘Quoted’ words", "quoted|words"),  # elsewhere it is a quotation mark
        ("en", "a|b <pad> c", "a|b|pad|c"),
        ("fr", "L’E\u0301TE\u0301 — «déjà»", "l'été|déjà"),  # decomposed letters are composed
        ("es", "¿Qué? ¡Año!", "qué|año"),
        ("de", "STRASSE Straße", "strasse|straße"),
        ("el", "Ο ΟΔΟΣ", "ο|οδος"),
        ("tr", "IĞDIR İstanbul ışık", "ığdır|istanbul|ışık"),
        ("az", "BAKI İLƏ", "bakı|ilə"),
        ("tr", "I\u0307zmir", "izmir"),  # i with a combining dot
        ("en", "IT", "it"),
        ("tt", "Iĺ QAZAN", "ıĺ|qazan"),  # Tatar in Latin letters
        ("tt", "XXI гасыр — Идел", "xxi|гасыр|идел"),  # and in Cyrillic, where I is a Roman numeral
        ("ky", "Кыргыз-Республикасы", "кыргыз|республикасы"),
        ("ar", "مَرْحَبًا، العـــالم!", "مَرْحَبًا|العالم"),  # vowel signs stay, the stroke goes
        ("he", "\u200fשָׁלוֹם\u200f, עולם", unicodedata.normalize("NFC", "שָׁלוֹם") + "|עולם"),
        ("fa", "می\u200cخواهم", "میخواهم"),
        ("hi", "नमस्ते, दुनिया।", "नमस्ते|दुनिया"),
        ("yo", "Ẹ\u0301 kú", "ẹ\u0301|kú"),  # no composed letter exists: the mark is a unit
        ("zh-TW", "你好，世界！", "你好世界"),
        ("cmn", "我 爱 你", "我爱你"),
        ("zh", "看 BBC 新聞", "看|bbc|新聞"),
        ("ja", "こんにちは、世界。", "こんにちは世界"),
        ("ko", "안녕 하세요", "안녕|하세요"),
        ("", "ab\u200bc\u00adde\u202e fg\ufeff", "abcde|fg"),  # zero width, soft hyphen, direction, byte order mark
        ("", "ok 👍️ 1️⃣", "ok|1"),  # a picture, its variation selector, a key cap
        ("", "x\u2028y\u00a0z", "x|y|z"),
        ("", "²½٣", "²½٣"),
        ("", "?!...", ""),
        ("", " \u200b ", ""),
    ],
)
def test_characters(language: str, text: str, expected: Any) -> None:
    assert _units(text, language) == expected


def test_right_to_left_text_stays_in_the_order_it_is_spoken() -> None:
    assert _units("אב גד", "he")[0] == "א"


def test_signs_that_are_to_be_kept_are_kept() -> None:
    assert _units("well-known isn't", keep="'-") == "well-known|isn't"
    assert _units("isn't", keep="") == "isn|t"
    assert _units("o’clock", keep="") == "o|clock"


def test_case_may_be_kept() -> None:
    assert _units("Ab CD", lowercase=False) == "Ab|CD"


def test_phones_are_what_stands_between_spaces() -> None:
    phones = to_units(TranscriptRules(units="phones"), "es")
    assert phones(" tʃ a  ˈi | S s\u200b <pad> ") == ("tʃ", "a", "ˈi", "S", "s", "<pad>")


def test_the_delimiter_cannot_be_kept() -> None:
    with pytest.raises(DataError, match=r"task\.transcripts\.keep: \"'\|\" holds '\|'.*leave it out"):
        to_units(TranscriptRules(keep="'|"), "")


@pytest.mark.parametrize(
    "language", ["", "es", "ES", "sv-SE", "zh_TW", "cmn", "nan-tw", "rm-sursilv", "sr-Latn", "zh-Hant-TW", "es-419"]
)
def test_known_languages(language: str) -> None:
    assert _units("a", language) == "a"


@settings(max_examples=40)
@given(st.text(max_size=30), st.sampled_from(["", "tr", "ar", "zh", "tt"]))
def test_normalising_twice_changes_nothing_and_the_delimiter_only_separates(text: str, language: str) -> None:
    once = _units(text, language)
    assert _units(once.replace("|", " "), language) == once
    assert not once.startswith("|") and not once.endswith("|") and "||" not in once
    assert not any(unicodedata.category(sign)[0] in "CZP" for sign in once if sign != "'")


def test_repeats_are_equal_neighbours() -> None:
    assert num_repeats(tuple("aabbb")) == 3
    assert num_repeats(tuple("abab")) == num_repeats(()) == 0
