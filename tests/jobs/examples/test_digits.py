"""Manifests of spoken digits: one speaker held out whole, words for digits."""

from pathlib import Path

import pytest

from prunus.configs.tasks.speech_data import SpeechSource
from prunus.jobs.data.speech.clips.layouts import find_clips
from prunus.jobs.examples import digits


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name in ("0_theo_0", "9_theo_10", "9_theo_2", "7_lucas_0", "3_george_1"):
        (folder / f"{name}.wav").touch()
    (folder / "README.md").touch()
    (folder / "10_theo_1.wav").touch()  # no digit
    return folder


def test_a_held_out_speaker_is_in_the_test_and_nowhere_else(recordings: Path, tmp_path: Path) -> None:
    assert digits.write(recordings, tmp_path / "out", "theo") == {"train": 2, "test": 3}
    source = {"files": [str(tmp_path / "out" / "test.tsv")]}
    clips = find_clips(SpeechSource.model_validate(source), "task.data.eval").clips
    assert [(Path(clip.name).name, clip.text) for clip in clips] == [
        ("0_theo_0.wav", "zero"), ("9_theo_2.wav", "nine"), ("9_theo_10.wav", "nine"),
    ]  # fmt: skip
    assert all(isinstance(clip.audio, Path) and clip.audio.is_file() for clip in clips)
    train = (tmp_path / "out" / "train.tsv").read_text()
    assert "theo" not in train.replace(str(recordings), "")
    assert train.splitlines()[1].endswith("3_george_1.wav\tthree\tgeorge")


def test_an_unknown_speaker_is_refused_with_the_names_there_are(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        digits.main([str(recordings), str(tmp_path / "out"), "--held-out", "anna"])
    assert "--held-out anna: the speakers are george, lucas, theo" in capsys.readouterr().err


def test_a_directory_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no file called DIGIT_SPEAKER_INDEX"):
        digits.write(tmp_path / "nowhere", tmp_path / "out", "theo")
