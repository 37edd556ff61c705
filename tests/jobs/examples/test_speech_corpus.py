"""The spoken corpus: layout, splits, lengths, bytes, phones, and what is refused or taken up again.

espeak-ng speaks in child processes only, so that no test changes what another hears.
"""

import csv
import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("babel", reason="needs the extra 'demo'")
pytest.importorskip("espeakng_loader", reason="needs the extra 'demo'")

import soundfile

from prunus.jobs.examples import speech_clips, speech_corpus
from prunus.jobs.examples.espeak import phones
from prunus.jobs.examples.speech_corpus import LANGUAGES, main
from prunus.jobs.examples.speech_phrases import Phrases

SCRIPT = {
    **dict.fromkeys(("es", "fr", "it", "nl", "sv", "tr"), r"[A-Za-z\u00c0-\u024f]"),
    **dict.fromkeys(("ky", "ru", "tt"), r"[\u0400-\u052f]"),
    "zh": r"[\u4e00-\u9fff]",
}
SPLITS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech") / "new"
    assert main(["--minutes", "0.5", str(folder)]) == 0
    return folder


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_in_the_layout_of_common_voice(corpus: Path, language: str) -> None:
    tables = {split: rows(corpus / language / f"{split}.tsv") for split in SPLITS}
    durations = {row["clip"]: int(row["duration[ms]"]) for row in rows(corpus / language / "clip_durations.tsv")}
    every_row = [row for table in tables.values() for row in table]
    clips = {path.name for path in (corpus / language / "clips").iterdir()}
    assert sorted(row["path"] for row in every_row) == sorted(durations) == sorted(clips)
    assert len({row["sentence"] for row in every_row}) == len(every_row)
    for key in ("client_id", "sentence"):
        values = [{row[key] for row in tables[split]} for split in SPLITS]
        assert not values[0] & values[1] and not values[0] & values[2] and not values[1] & values[2]
    for split in SPLITS:
        seconds = sum(durations[row["path"]] for row in tables[split]) / 1000
        assert seconds == pytest.approx(30, rel=0.1), split
    for row in every_row:
        assert None not in row and None not in row.values()
        assert row["locale"] == language and row["gender"] in {"male_masculine", "female_feminine"}
        assert re.fullmatch(f"({SCRIPT[language]}|[ ,、’'-])+", row["sentence"]), row["sentence"]
        assert 600 <= durations[row["path"]] <= 8000


@pytest.mark.parametrize("language", LANGUAGES)
def test_clips_are_heard_and_have_phones(corpus: Path, language: str) -> None:
    for row in rows(corpus / language / "dev.tsv"):
        samples, rate = soundfile.read(corpus / language / "clips" / row["path"], dtype="int16")
        assert (rate, samples.ndim) == (16000, 1)
        assert np.sqrt(np.mean(samples.astype(float) ** 2)) > 300
        assert np.abs(samples.astype(int)).max() < 32767
        tokens = row["phones"].split(" ")
        # Nobody says more than 30 phones a second, or fewer than 2.
        assert 2 < len(tokens) / (len(samples) / rate) < 30, row
        assert all(re.fullmatch(r"[^\W\d_A-Z][\u0300-\u036f\u02b0-\u02ff]*", token) for token in tokens), row


def test_speakers_are_of_both_genders_and_differ_between_languages(corpus: Path) -> None:
    spoken = rows(corpus / "es" / "train.tsv")
    assert len({row["client_id"] for row in spoken}) > 5
    assert {row["gender"] for row in spoken} == {"male_masculine", "female_feminine"}
    es, fr = (speech_clips.speakers("dev", language, "x", seed=0) for language in ("es", "fr"))
    assert [a.voice.variant for a in es] == [b.voice.variant for b in fr]
    assert [a.voice.rate for a in es] != [b.voice.rate for b in fr]


def test_the_same_bytes_in_another_process_whatever_its_memory_held(corpus: Path, tmp_path: Path) -> None:
    dirty = {**os.environ, "MALLOC_PERTURB_": "170"}  # glibc fills what it hands out
    command = [sys.executable, "-m", "prunus.jobs.examples.speech_corpus", "--languages=zh,es"]
    command += ["--minutes=0.5", "--seed=0"]
    subprocess.run([*command, "--", str(tmp_path)], env=dirty, capture_output=True, check=True, timeout=120)
    for language in ("zh", "es"):
        assert contents(tmp_path / language) == contents(corpus / language)


def test_another_seed_gives_another_corpus(corpus: Path, tmp_path: Path) -> None:
    assert main(["--languages", "es", "--minutes", "0.5", "--seed", "1", str(tmp_path)]) == 0
    said = [{row["sentence"] for row in rows(folder / "es" / "train.tsv")} for folder in (corpus, tmp_path)]
    assert len(said[0] & said[1]) < 3


def test_a_complete_corpus_is_left_alone(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    assert main(["--minutes", "0.5", str(corpus)]) == 0
    assert "complete already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*")} == before


def test_the_record_says_what_was_asked_and_what_was_made(corpus: Path) -> None:
    record = json.loads((corpus / "corpus.json").read_text())
    assert (record["languages"], record["minutes"], record["seed"]) == (list(LANGUAGES), 0.5, 0)
    assert {"babel", "espeak-ng", "espeakng-loader", "soundfile"} < record["versions"].keys()
    for language, made in record["made"].items():
        assert made["phrases"] > 1_000_000
        assert made["train"]["clips"] == len(rows(corpus / language / "train.tsv"))
    assert sorted(path.name for path in corpus.iterdir()) == sorted([*LANGUAGES, "corpus.json"])


@pytest.mark.parametrize("end", ["error", "killed"])
def test_a_broken_off_run_is_taken_up_again(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], end: str
) -> None:
    def write_half(folder: Path, language: str, *rest: object) -> None:
        if language == "ky":
            (folder / "clips").mkdir(parents=True)
            (folder / "clips" / "half.flac").write_bytes(b"fLa")
            if end == "killed":
                os._exit(9)
            raise OSError("no space left")
        speech_clips.write_language(folder, language, *rest)  # type: ignore[arg-type]

    command = ["--languages", "es,ky", "--minutes", "0.5", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 1)  # one after the other
        patch.setattr(speech_corpus, "write_language", write_half)
        assert main(command) == 1
    error = capsys.readouterr().err
    assert "no space left" in error if end == "error" else "ky: its process ended with 9" in error
    assert {path.name for path in tmp_path.glob("[!.]*")} == {"es", "corpus.unfinished.json"}
    assert len(list(tmp_path.glob(".ky.*"))) == (end == "killed")  # what it had written
    kept = (tmp_path / "es" / "train.tsv").stat().st_ino
    assert main(command) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"es", "ky", "corpus.json"}
    assert contents(tmp_path / "ky") == contents(corpus / "ky")
    assert (tmp_path / "es" / "train.tsv").stat().st_ino == kept


def test_another_request_does_not_mix_with_what_is_there(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--minutes", "0.5", "--seed", "1", str(corpus)]) == 2
    assert "says another corpus: seed 0, not 1; name another folder" in capsys.readouterr().err
    (tmp_path / "es").mkdir()
    (tmp_path / "corpus.unfinished.json").write_text('{"languages": ["es"], "minutes": 3.0, "seed": 0, "versions": {}}')
    assert main(["--languages", "es", str(tmp_path)]) == 2
    assert "minutes 3.0, not 10.0" in capsys.readouterr().err


def test_a_folder_with_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("")
    assert main([str(tmp_path)]) == 2
    assert "is no corpus, it holds thesis.tex; name a new or empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert main(["--languages", "es", str(tmp_path)]) == 2
    finally:
        os.close(descriptor)
    assert "another run writes into" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--languages", "es,spanish", "know 'spanish'; did you mean es (Spanish)"),
        ("--languages", "fo", "know 'fo'"),  # espeak-ng lists it, but has no dictionary
        ("--languages", "../es", "know '../es'"),
        ("--languages", ",", "names none"),
        ("--minutes", "0", "must be above 0, got 0"),
        ("--minutes", "nan", "must be above 0, got nan"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, expected: str
) -> None:
    assert main([option, value, str(tmp_path / "new")]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_too_few_phrases_are_said_and_nothing_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    days = ("lunes", "martes", "jueves")
    monkeypatch.setattr(speech_clips, "phrases_of", lambda locale: Phrases(locale, {"day": days}, None))
    assert main(["--languages", "es", "--minutes", "5", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "es: among 27 phrases are too few" in error and "ask for fewer minutes" in error
    assert main(["--languages", "it", "--minutes", "0.1", str(tmp_path)]) == 2  # nothing is there yet to mix with
    assert "it: among 27 phrases" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("language", "ipa", "expected"),
    [
        ("zle/ru", "rʌsʲsʲˈijskʲij rˈubɭʲ", "r ʌ sʲ sʲ i j s kʲ i j r u b ɭʲ"),
        ("roa/fr", "ʃɑ̃tˈe dy- kɔ̃ʒˈe", "ʃ ɑ̃ t e d y k ɔ̃ ʒ e"),
        ("roa/it", "tʃitːˈa", "t ʃ i tː a"),
        ("trk/ky", "dZɑNˈɯ zˌelɑnd[ijˈɑ zˈu: oelkˈoe", "d ʒ ɑ ŋ ɯ z e l ɑ n d̪ i j ɑ z uː ø l k ø"),
        ("sit/cmn", "ts.ˈonɡ5 khˈo-ɜ wˈɑ2", "t ʂ o n ɡ kʰ ɤ w ɑ"),
        ("gmw/de", "iç", "i ç"),
        ("roa/es", "", ""),
    ],
)
def test_a_phone_is_a_letter_with_its_marks(language: str, ipa: str, expected: str) -> None:
    assert phones(ipa, language) == expected.split()
