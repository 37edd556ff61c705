"""Which clips are used: limits, a random part of so many minutes, and what is said of the others."""

import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from prunus.configs.tasks.speech_data import SpeechSource, TranscriptRules
from prunus.jobs.data.speech.clips import probes as probes_module
from prunus.jobs.data.speech.clips.layouts import ClipList, find_clips
from prunus.jobs.data.speech.clips.probes import Probes
from prunus.jobs.data.speech.clips.subset import LeftOut, Limits, choose, report
from prunus.jobs.data.speech.units.transcripts import to_units
from prunus.jobs.errors import DataError
from tests.jobs.data.speech.speech_corpus import RATE, common_voice, speech_input, write_clip


def _limits(**changed: Any) -> Limits:
    units = to_units(TranscriptRules(), "")
    fixed = {"rate": RATE, "frames": speech_input().frames, "min_s": 0.25, "max_s": 20.0, "min_frames": 10}
    return Limits(**{**fixed, "to_units": units, **changed})


def _find(table: Path) -> ClipList:
    return find_clips(SpeechSource(files=(str(table),)), "task.data.train[0]")


def _names(tmp_path: Path, clips: ClipList, **options: Any) -> list[str]:
    return [chosen.clip.name for chosen in choose(clips, Probes(clips, tmp_path), _limits(), **options).chosen]


def test_samples_frames_and_limits() -> None:
    # 400 samples make the first frame, 320 each further one: 10 frames need 400 + 9 * 320 = 3280 samples.
    limits = _limits(min_s=0.05)
    assert limits.unfit(3280, ("a",)) is None
    assert limits.unfit(3279, ("a",)) == ("too_short", "9 frames, 10 are needed (a span of the masks)")
    assert _limits(min_s=0.05, min_frames=0).unfit(399, ()) == ("bad", "no transcript is left of its text")
    assert _limits(min_s=0.02, min_frames=0, to_units=None).unfit(399, ()) == ("too_short", "0 frames, 1 are needed")
    assert _limits().unfit(3999, ("a",)) == ("too_short", "0.25 s")
    assert _limits().unfit(20 * RATE + 1, ("a",)) == ("too_long", "20.0 s")
    assert _limits(max_s=None).unfit(60 * RATE, ("a",)) is None


def test_ctc_needs_a_frame_per_unit_and_one_between_equal_ones() -> None:
    limits = _limits()
    num_samples = 400 + 19 * 320  # 20 frames
    assert limits.unfit(num_samples, tuple("ab" * 10)) is None
    assert limits.unfit(num_samples, tuple("ab" * 10 + "a")) == (
        "transcript_too_long",
        "21 units, 0 of them repeated, 20 frames",
    )
    assert limits.unfit(num_samples, tuple("aabbcc" * 2 + "de")) is None  # 14 units, 6 repeats
    reason = limits.unfit(num_samples, tuple("aabbcc" * 2 + "dee"))
    assert reason is not None and reason[0] == "transcript_too_long"


def test_each_reason_is_counted(tmp_path: Path) -> None:
    table = common_voice(
        tmp_path,
        [("good.wav", 1.0, "si"), ("short.wav", 0.1, "si"), ("long.wav", 2.0, "si"), ("full.wav", 0.5, "abc" * 20),
         ("silent.wav", 1.0, "…"), ("gone.wav", 0, "si")],
    )  # fmt: skip
    clips = _find(table)
    subset = choose(clips, Probes(clips, tmp_path), _limits(max_s=1.5))
    assert [chosen.clip.name for chosen in subset.chosen] == ["good.wav"]
    assert subset.num_seen == 6
    assert {reason: [name for name, _ in found] for reason, found in subset.left_out.by_reason.items()} == {
        "too_short": ["short.wav"],
        "too_long": ["long.wav"],
        "transcript_too_long": ["full.wav"],
        "bad": ["silent.wav", "gone.wav"],
    }
    assert subset.left_out.named("bad") == "silent.wav: no transcript is left of its text; gone.wav: no such file"


def test_nothing_left_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    clips = _find(common_voice(tmp_path, [("a.wav", 0.1, "si"), ("b.wav", 1.0, "?")]))
    with pytest.raises(
        DataError, match=r"none of 2 clips can be used: 1 bad \(b\.wav: .*1 too_short \(a\.wav: 0\.10 s"
    ):
        choose(clips, Probes(clips, tmp_path), _limits())


@pytest.fixture
def sixty(tmp_path: Path) -> Path:
    """60 clips of 0.5 to 1.0 s: 45 s in all."""
    return common_voice(tmp_path, [(f"{i:02}.wav", 0.5 + 0.5 * (i * 7 % 60) / 59, "si") for i in range(60)])


def test_minutes_are_kept_to_within_a_clip_and_never_exceeded(tmp_path: Path, sixty: Any) -> None:
    clips = _find(sixty)
    for seconds in (3, 10, 20):
        subset = choose(clips, Probes(clips, tmp_path), _limits(), minutes=seconds / 60)
        chosen_s = sum(chosen.num_samples for chosen in subset.chosen) / RATE
        assert seconds - 1.0 < chosen_s <= seconds


def test_a_smaller_part_lies_in_the_larger_one_and_seeds_differ(tmp_path: Path, sixty: Any) -> None:
    clips = _find(sixty)
    parts = [set(_names(tmp_path, clips, minutes=seconds / 60)) for seconds in (5, 6, 17, 30)]
    assert all(small < large for small, large in pairwise(parts))
    other = set(_names(tmp_path, clips, minutes=17 / 60, seed=1))
    assert other != parts[2]
    assert set(_names(tmp_path, clips, minutes=1)) == {clip.name for clip in clips.clips}


def test_the_part_does_not_depend_on_the_order_of_the_rows(tmp_path: Path, sixty: Any) -> None:
    before = _names(tmp_path, _find(sixty), minutes=0.2)
    header, *rows = sixty.read_text().splitlines()
    sixty.write_text("\n".join([header, *reversed(rows)]) + "\n")
    after = _names(tmp_path, _find(sixty), minutes=0.2)
    assert sorted(after) == sorted(before)
    assert after == sorted(after, reverse=True)  # clips stay in the order of the source


def test_more_minutes_than_there_are_is_a_warning(tmp_path: Path, sixty: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert len(_names(tmp_path, _find(sixty), minutes=10)) == 60
    assert "holds 0.8 of task.data.minutes 10: all are used" in caplog.text


def test_clips_that_cannot_be_used_take_no_minutes(tmp_path: Path) -> None:
    table = common_voice(tmp_path, [(f"{i}.wav", 1.0 if i % 2 else 0.1, "si") for i in range(20)])
    assert len(_names(tmp_path, _find(table), minutes=5.5 / 60)) == 5


def test_fewer_minutes_than_a_clip_is_an_error(tmp_path: Path, sixty: Any) -> None:
    clips = _find(sixty)
    with pytest.raises(DataError, match=r"task\.data\.minutes 0\.001 is shorter than the first clip"):
        choose(clips, Probes(clips, tmp_path), _limits(), minutes=0.001)


def test_the_first_so_many_usable_clips(tmp_path: Path) -> None:
    table = common_voice(tmp_path, [(f"{i}.wav", 0.1 if i == 1 else 0.5, "si") for i in range(6)])
    assert _names(tmp_path, _find(table), max_clips=3) == ["0.wav", "2.wav", "3.wav"]


def _left_out(num_bad: int) -> LeftOut:
    left_out = LeftOut()
    for number in range(num_bad):
        left_out.add("bad", f"{number}.mp3", "no such file")
    return left_out


def test_too_many_bad_clips_end_the_job_and_are_named() -> None:
    report("train", _left_out(2), 200, 0.01, warn=False)
    expected = r"train: 3 of 200 clips \(1\.5%\) are bad, more than task\.data\.max_bad 0\.01: 0\.mp3: no such file; 1"
    with pytest.raises(DataError, match=expected):
        report("train", _left_out(3), 200, 0.01, warn=False)


def test_left_out_clips_are_logged_with_the_first_names(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        report("train", _left_out(7), 1000, 0.01, warn=True)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("train: 7 of 1000 clips left out, bad: 0.mp3: no such file; 1.mp3")
    assert line.endswith("4.mp3: no such file; ...")


def test_a_second_start_opens_no_clip_that_is_unchanged(
    tmp_path: Path, sixty: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = _find(sixty)
    first = choose(clips, Probes(clips, tmp_path), _limits())
    opened = []

    def header(audio: Path) -> Any:
        opened.append(audio.name)
        return original(audio)

    original = probes_module.read_header
    monkeypatch.setattr(probes_module, "read_header", header)
    assert choose(clips, Probes(clips, tmp_path), _limits()).chosen == first.chosen
    assert opened == []
    write_clip(sixty.parent / "clips" / "07.wav", 0.7)
    second = choose(clips, Probes(clips, tmp_path), _limits())
    assert opened == ["07.wav"]
    changed = [a.clip.name for a, b in zip(first.chosen, second.chosen, strict=True) if a.digest != b.digest]
    assert changed == ["07.wav"]


def test_a_damaged_memory_is_no_harm(tmp_path: Path, sixty: Any) -> None:
    clips = _find(sixty)
    first = choose(clips, Probes(clips, tmp_path), _limits())
    for memory in (tmp_path / "probes").iterdir():
        memory.write_text('{"version": 1, "cl')
    assert choose(clips, Probes(clips, tmp_path), _limits()).chosen == first.chosen
