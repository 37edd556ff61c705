"""Clips as samples: any rate, any number of channels, and what is wrong with the bad ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from prunus.jobs.data.speech.clips.audio import BadAudio, decode, edge_digest, read_header
from tests.jobs.data.speech.speech_corpus import RATE, tone, write_clip


def _strongest_hz(samples_S: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples_S * np.hanning(len(samples_S))))
    return float(np.fft.rfftfreq(len(samples_S), 1 / RATE)[spectrum.argmax()])


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
def test_every_rate_becomes_the_models(tmp_path: Path, rate: int) -> None:
    samples_S = decode(write_clip(tmp_path / "a.wav", 1.0, rate), RATE)
    assert samples_S.dtype == np.int16
    assert len(samples_S) == RATE == read_header(tmp_path / "a.wav").resampled(RATE)
    assert _strongest_hz(samples_S) == pytest.approx(440, abs=2)
    middle = samples_S[2000:14000] / 2**15  # the ends ring
    assert np.abs(middle - tone(1.0)[2000:14000]).max() < 0.01


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_every_form_is_read_from_a_file_or_from_bytes(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"a{suffix}", 1.0, 48000, channels=2)
    samples_S = decode(path, RATE)
    assert len(samples_S) == pytest.approx(RATE, abs=RATE // 10)
    assert _strongest_hz(samples_S) == pytest.approx(440, abs=2)
    assert (decode(path.read_bytes(), RATE) == samples_S).all()


def test_channels_are_averaged(tmp_path: Path) -> None:
    left_S = tone(0.5)
    soundfile.write(tmp_path / "a.wav", np.stack([left_S, np.zeros_like(left_S)], axis=1), RATE, subtype="FLOAT")
    assert np.abs(decode(tmp_path / "a.wav", RATE) / 2**15 - left_S / 2).max() < 1e-4


def test_a_low_rate_clip_is_not_given_sounds_it_never_had(tmp_path: Path) -> None:
    samples_S = decode(write_clip(tmp_path / "a.wav", 1.0, 8000, pitch_hz=3000), RATE)
    spectrum = np.abs(np.fft.rfft(samples_S[2000:14000] / 2**15 * np.hanning(12000)))
    above = np.fft.rfftfreq(12000, 1 / RATE) > 4200
    assert spectrum[above].max() < 0.01 * spectrum.max()


def _half(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".wav", ".ogg"])
def test_a_truncated_file_is_bad(tmp_path: Path, suffix: str) -> None:
    path = _half(write_clip(tmp_path / f"a{suffix}", 3.0, 48000))
    with pytest.raises(BadAudio, match=r"cut off|cannot be decoded|no samples"):
        decode(path, RATE)


def test_a_hole_in_a_file_is_bad(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.flac", 3.0)
    content = bytearray(path.read_bytes())
    third = len(content) // 3
    content[third : 2 * third] = bytes(third)
    path.write_bytes(content)
    with pytest.raises(BadAudio):
        decode(path, RATE)


def test_a_wav_that_was_written_into_a_pipe_is_good(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.wav", 0.5)
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert len(decode(path, RATE)) == RATE // 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "an empty file"),
        (b"<html>not found</html>" * 50, "cannot be decoded: "),
    ],
)
@pytest.mark.parametrize("suffix", [".mp3", ".wav"])
def test_what_is_no_audio_says_so(tmp_path: Path, content: Any, reason: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadAudio, match=reason):
        read_header(path)
    with pytest.raises(BadAudio, match=reason):
        decode(path, RATE)


def test_a_file_without_samples_is_bad(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0), RATE)
    with pytest.raises(BadAudio, match="holds no samples"):
        decode(tmp_path / "a.wav", RATE)


def test_samples_that_are_not_finite_are_bad(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(800, np.nan), RATE, subtype="FLOAT")
    with pytest.raises(BadAudio, match="not finite"):
        decode(tmp_path / "a.wav", RATE)


def test_samples_beyond_full_scale_do_not_wrap(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.asarray([1.5, -1.5, 0.25]), RATE, subtype="FLOAT")
    assert decode(tmp_path / "a.wav", RATE).tolist() == [32767, -32768, 8192]


def test_the_digest_of_a_clip_sees_both_ends_and_the_size(tmp_path: Path) -> None:
    base = bytearray(np.random.default_rng(0).bytes(300_000))
    digests = {edge_digest(bytes(base)), edge_digest(bytes(base[:-1]))}
    for place in (0, 65_535, 300_000 - 65_536, 299_999):
        changed = bytearray(base)
        changed[place] ^= 1
        digests.add(edge_digest(bytes(changed)))
    assert len(digests) == 6
    (tmp_path / "a").write_bytes(base)
    assert edge_digest(tmp_path / "a") == edge_digest(bytes(base))
