"""Layouts: which clips a source names, and what its torn rows become."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from prunus.configs.tasks.speech_data import SpeechSource
from prunus.jobs.data.speech.clips.hub import hub_clips
from prunus.jobs.data.speech.clips.layouts import Clip, find_clips
from prunus.jobs.errors import DataError
from tests.jobs.data.speech.speech_corpus import common_voice, hub_data, write_clip

WHERE = "task.data.train[0]"


def _clips(path: Path | str, transcribed: bool = True, **source: Any) -> list[Clip]:
    return find_clips(SpeechSource(files=(str(path),), **source), WHERE, transcribed=transcribed).clips


def _texts(clips: list[Clip]) -> dict[str, str | None]:
    assert all(isinstance(clip.audio, Path) and clip.audio.is_file() for clip in clips)
    return {clip.name: clip.text for clip in clips}


def test_common_voice(tmp_path: Path) -> None:
    table = common_voice(tmp_path, [("a.mp3", 0.3, "Uno"), ("b.mp3", 0.3, 'dijo "dos'), ("c.mp3", 0.3, '"tres"')])
    assert _texts(_clips(table)) == {"a.mp3": "Uno", "b.mp3": 'dijo "dos', "c.mp3": '"tres"'}


def test_the_first_common_voice_left_the_suffix_out(tmp_path: Path) -> None:
    table = common_voice(tmp_path, [("a.mp3", 0.3, "Uno")])
    table.write_text(table.read_text().replace("a.mp3", "a"))
    assert _texts(_clips(table)) == {"a": "Uno"}


def test_clips_of_common_voice_may_lie_elsewhere(tmp_path: Path) -> None:
    table = common_voice(tmp_path, [("a.mp3", 0.3, "Uno")])
    (tmp_path / "clips").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"say in clips where they are"):
        _clips(table, layout="common_voice")
    assert _texts(_clips(table, clips=str(tmp_path / "elsewhere"))) == {"a.mp3": "Uno"}


def test_a_tab_inside_a_sentence_and_a_torn_line_are_faults_with_their_line(tmp_path: Path) -> None:
    table = common_voice(tmp_path, [("a.wav", 0.3, "Uno"), ("b.wav", 0.3, "dos\ttres"), ("c.wav", 0.3, "x")])
    table.write_text(table.read_text() + "c3\tonly")
    clips = _clips(table)
    assert [(clip.name, clip.fault) for clip in clips] == [
        ("a.wav", ""),
        ("train.tsv:3", "5 columns where the header has 4"),
        ("c.wav", ""),
        ("train.tsv:5", "2 columns where the header has 4"),
    ]


def test_a_row_that_names_no_clip_is_a_fault(tmp_path: Path) -> None:
    table = common_voice(tmp_path, [("a.wav", 0.3, "Uno"), ("", 0, "dos")])
    assert _clips(table)[1] == Clip("train.tsv:3", None, None, "column 'path' names no clip")


def test_librispeech(tmp_path: Path) -> None:
    write_clip(tmp_path / "dev/84/121/84-121-0000.flac", 0.3)
    write_clip(tmp_path / "dev/84/122/84-122-0001.flac", 0.3)
    (tmp_path / "dev/84/121/84-121.trans.txt").write_text("84-121-0000 GO DO YOU HEAR\n84-121-0001 MISSING ONE\n")
    (tmp_path / "dev/84/122/84-122.trans.txt").write_text("84-122-0001 BUT\n")
    clips = _clips(tmp_path / "dev")
    assert clips[1] == Clip("84-121-0001", "MISSING ONE", None, "no audio of this name in 121/")
    assert _texts([clips[0], clips[2]]) == {"84-121-0000": "GO DO YOU HEAR", "84-122-0001": "BUT"}


def test_mls(tmp_path: Path) -> None:
    write_clip(tmp_path / "train/audio/48/100/48_100_000001.flac", 0.3)
    (tmp_path / "train/transcripts.txt").write_text("48_100_000001\tdie bauern\n")
    expected = {"48_100_000001": "die bauern"}
    assert _texts(_clips(tmp_path / "train")) == _texts(_clips(tmp_path / "train/transcripts.txt")) == expected


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "ndjson"])
def test_manifests(tmp_path: Path, form: str) -> None:
    write_clip(tmp_path / "wavs/a.wav", 0.3)
    outside = write_clip(tmp_path.parent / f"{tmp_path.name}-b.wav", 0.3)
    rows = [("wavs/a.wav", 'ein, "zwei"'), (str(outside), "drei")]
    path = tmp_path / f"train.{form}"
    if form == "csv":
        path.write_text('audio_filepath,text\nwavs/a.wav,"ein, ""zwei"""\n' + f"{outside},drei\n")
    elif form == "tsv":
        path.write_text("audio_filepath\ttext\n" + "".join(f"{a}\t{b}\n" for a, b in rows))
    else:
        path.write_text("".join(json.dumps({"audio_filepath": a, "text": b, "duration": 1}) + "\n" for a, b in rows))
    assert _texts(_clips(path)) == dict(rows)


def test_a_manifest_with_columns_of_any_name_or_none(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.wav", 0.3)
    path = tmp_path / "m.csv"
    path.write_text("what,where\nhola,a.wav\n")
    assert _texts(_clips(path, audio_column="where", text_column="what")) == {"a.wav": "hola"}
    path.write_text("hola,a.wav\n")
    assert _texts(_clips(path, audio_column="1", text_column="0", header=False)) == {"a.wav": "hola"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", "path,words\na.wav,x\n", "has no column called sentence, text, .*; it has 'path'"),
        ("m.csv", "", "is empty"),
        ("m.csv", "path,path\na,b\n", "names a column twice"),
        ("m.csv", "path,text\n", "names no clip"),
        ("m.tsv", "path\ttext\na\tb\tc\n", r"names no clip .*m\.tsv:2: 3 columns where the header has 2"),
        ("m.jsonl", "[1]\n", "line 1: is no JSON object"),
        ("m.jsonl", '{"audio": "a", "text": "b", "offset": 2.5}\n', r"m\.jsonl:1 names a part of a recording"),
        ("m.xlsx", "x", "cannot tell what .* is; give a Common Voice tsv"),
    ],
)  # fmt: skip
def test_manifests_that_cannot_be_read(tmp_path: Path, name: str, content: Any, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        _clips(tmp_path / name)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.tsv").write_bytes(b"path\ttext\na.wav\tni\xf1o\n")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        _clips(tmp_path / "m.tsv")


def test_broken_json_lines_and_missing_texts_are_faults(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.wav", 0.3)
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio": "a.wav", "text": "x"}\n{"audio": "a.w\n{"audio": "b.wav", "text": null}\n')
    faults = [(clip.name, clip.fault) for clip in _clips(path)]
    assert faults[0] == ("a.wav", "")
    assert faults[1][0] == "m.jsonl:2" and faults[1][1].startswith("is no JSON")
    assert faults[2] == ("b.wav", "column 'text' holds no text (m.jsonl:3)")


def test_directories_of_audio_serve_tasks_without_transcripts(tmp_path: Path) -> None:
    write_clip(tmp_path / "x/b.wav", 0.3)
    write_clip(tmp_path / "a.flac", 0.3)
    (tmp_path / "readme.txt").write_text("not audio")
    assert _texts(_clips(tmp_path, transcribed=False)) == {"a.flac": None, "x/b.wav": None}
    assert _texts(_clips(tmp_path / "x" / "*.wav", transcribed=False)) == {"b.wav": None}
    with pytest.raises(DataError, match="recordings without transcripts, which task ctc needs"):
        _clips(tmp_path)


def test_a_manifest_needs_no_transcripts_where_none_are_asked_for(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.wav", 0.3)
    (tmp_path / "m.csv").write_text("path,speaker\na.wav,3\n")
    assert _texts(_clips(tmp_path / "m.csv", transcribed=False)) == {"a.wav": None}


def test_places_that_do_not_exist_and_layouts_that_are_mixed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"task\.data\.train\[0\]\.files: '.*none\.tsv' .* does not exist"):
        _clips(tmp_path / "none.tsv")
    with pytest.raises(DataError, match="matches nothing"):
        _clips(tmp_path / "*.tsv")
    common_voice(tmp_path / "cv", [("a.wav", 0.3, "x")])
    with pytest.raises(DataError, match=r"is a directory; give one of its files, train\.tsv"):
        _clips(tmp_path / "cv")
    (tmp_path / "m.csv").write_text("path,text\na,b\n")
    both = (str(tmp_path / "cv/train.tsv"), str(tmp_path / "m.csv"))
    with pytest.raises(DataError, match="mixes the layouts common_voice, manifest; make a source of each"):
        find_clips(SpeechSource(files=both), WHERE)


def test_hub_data_sets_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = write_clip(tmp_path / "a.wav", 0.3).read_bytes()
    held = hub_data([content, content], ["uno", None])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_args, **_kwargs: held)
    monkeypatch.setattr("prunus.jobs.data.pipeline.rows.Rows.fingerprint", lambda _self: "revision")
    found = hub_clips(SpeechSource(hub="some/speech"), WHERE)
    assert [(clip.name, clip.text, clip.fault) for clip in found.clips] == [
        ("row 1", "uno", ""),
        ("row 2", None, "column 'text' holds no text"),
    ]
    assert found.open(found.clips[0]) == content
