"""Phrases: words only, each once, in the language's own script; the count against one worked by hand."""

import itertools

import pytest

pytest.importorskip("babel", reason="needs the extra 'demo'")

from babel import Locale

from prunus.jobs.examples.speech_clips import SHARES, split_of
from prunus.jobs.examples.speech_phrases import Phrases, clean, is_speakable, phrases_of, scripts

LATIN, CYRILLIC = frozenset({"LATIN"}), frozenset({"CYRILLIC"})


def test_three_names_give_every_list_of_two_and_three_once() -> None:
    phrases = Phrases(Locale("es"), {"day": ("jueves", "lunes", "martes")}, None)
    drawn = list(phrases.draw(0))
    # 3 names; 3 x 2 pairs and 3 x 2 x 1 triples, each with "y" and with "o"
    assert len(drawn) == len(set(drawn)) == len(phrases) == 3 + 12 + 12
    assert {"lunes", "martes y lunes", "lunes o martes", "jueves, lunes o martes", "martes, jueves y lunes"} < set(
        drawn
    )


def test_two_units_are_also_joined_by_per() -> None:
    phrases = Phrases(Locale("es"), {"unit": ("litros", "metros")}, "{0} por {1}")
    both = [f"litros {word} metros" for word in ("y", "o", "por")]
    reverse = [f"metros {word} litros" for word in ("y", "o", "por")]
    assert sorted(phrases.draw(3)) == sorted(["litros", "metros", *both, *reverse])
    assert len(phrases) == 8


def test_a_list_that_reads_as_a_name_is_not_said_twice() -> None:
    phrases = Phrases(Locale("es"), {"territory": ("San Pedro", "San Pedro y Miquelón", "Miquelón")}, None)
    drawn = list(phrases.draw(0))
    assert len(drawn) == len(set(drawn)) < len(phrases)


def test_the_order_depends_on_the_seed_alone() -> None:
    first, again, other = (list(itertools.islice(phrases_of(Locale("tt")).draw(seed), 500)) for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 500


def test_splits_have_their_shares_and_hold_for_ever() -> None:
    drawn = list(itertools.islice(phrases_of(Locale("sv")).draw(0), 7000))
    counts = {split: sum(split_of(text) == split for text in drawn) for split in SHARES}
    assert abs(counts["train"] - 5000) < 200 and abs(counts["dev"] - 1000) < 150 and abs(counts["test"] - 1000) < 150
    # The first 48 bits of sha256, modulo 7, are 2, 5 and 6; 0 to 4 is train, 5 dev, 6 test.
    assert [split_of(text) for text in ("Sverige", "Umeå", "Kina")] == ["train", "dev", "test"]


@pytest.mark.parametrize(
    ("name", "own_scripts", "expected"),
    [
        ("Côte d’Ivoire", LATIN, True),
        ("Groot-Brittannië", LATIN, True),
        ("Великобритания", CYRILLIC, True),
        ("Великобритания", LATIN, False),
        ("Congo (Kinshasa)", LATIN, False),
        ("dólar (1989)", LATIN, False),
        ("ONU", LATIN, False),
        ("АКШнын аралдары", CYRILLIC, False),
        ("m/s", LATIN, False),
        ("a.m.", LATIN, False),
        ("", LATIN, False),
        ("a" * 61, LATIN, False),
    ],
)
def test_names_are_words_only(name: str, own_scripts: frozenset[str], expected: bool) -> None:
    assert is_speakable(name, own_scripts) is expected


def test_text_is_normalised() -> None:
    assert clean(" e\u0301te\u0301\u00a0 chaud\t") == "été chaud"
    assert scripts("Україна abc", at_least=0.5) == CYRILLIC
