"""Clips as samples: opened with soundfile (wav, flac, mp3, ogg; no FFmpeg), made mono, resampled by torchaudio.

A clip is a file, or the bytes of one. Whatever is wrong with it becomes a :class:`BadAudio` with a reason in a few
words; the callers count and name such clips. Knows nothing of transcripts.
"""

import hashlib
import io
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from torchaudio.transforms import Resample

Audio: TypeAlias = Path | bytes
Samples = npt.NDArray[np.int16]

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".oga", ".aiff", ".aif", ".au")
_EDGE_BYTES = 64 * 1024
_LOST_S = 0.1
"""A clip that gives so much less than its header promises was cut off."""
_FULL_SCALE = 2**15
_WAV_LENGTH = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
_UNKNOWN_LENGTH = 0x7FFFF000
"""Programs that write wav into a pipe put 0 or a number near 2 or 4 GiB where the length belongs."""


class BadAudio(Exception):
    """A clip that cannot be used; the message is the reason."""


@dataclass(frozen=True)
class Header:
    """What a clip says of itself.

    Attributes:
        num_frames: Samples per channel, at the clip's own rate.
        rate: Samples per second.
    """

    num_frames: int
    rate: int

    def resampled(self, rate: int) -> int:
        """Samples after resampling: torchaudio gives the ceiling."""
        return -(-self.num_frames * rate // self.rate)


def read_header(audio: Audio) -> Header:
    """Read length and rate without decoding (mp3: its frames are counted).

    Raises:
        BadAudio: No file, no audio, or no samples.
    """
    try:
        info = soundfile.info(_openable(audio))
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise BadAudio(_reason(audio, error)) from error
    if cut := _WAV_LENGTH.search(info.extra_info):
        promised, there = map(int, cut.groups())
        if there < promised < _UNKNOWN_LENGTH:
            raise BadAudio(f"cut off: {there} of {promised} bytes of samples")
    if info.frames <= 0 or info.samplerate <= 0:
        raise BadAudio("holds no samples")
    return Header(info.frames, info.samplerate)


def decode(audio: Audio, rate: int) -> Samples:
    """Return the clip's samples: the mean of its channels, at ``rate`` samples per second.

    Raises:
        BadAudio: It cannot be read, is cut off or empty, or holds numbers that are not finite.
    """
    header = read_header(audio)
    try:
        samples_SC, _ = soundfile.read(_openable(audio), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise BadAudio(_reason(audio, error)) from error
    if len(samples_SC) < header.num_frames - _LOST_S * header.rate:
        raise BadAudio(f"cut off: {len(samples_SC) / header.rate:.2f} of {header.num_frames / header.rate:.2f} s")
    samples_S: npt.NDArray[np.float32] = samples_SC[:, 0] if samples_SC.shape[1] == 1 else samples_SC.mean(axis=1)
    if not np.isfinite(samples_S).all():
        raise BadAudio("holds samples that are not finite")
    if header.rate != rate:
        samples_S = _resampler(header.rate, rate)(torch.from_numpy(np.ascontiguousarray(samples_S))).numpy()
    if not len(samples_S):
        raise BadAudio("holds no samples")
    scaled_S = np.rint(samples_S * np.float32(_FULL_SCALE))
    whole_S: Samples = np.clip(scaled_S, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
    return whole_S


def edge_digest(audio: Audio) -> str:
    """Return a sha256 over size, first and last 64 KiB: the whole of most clips, and enough to know a long one again
    (codecs leave no two recordings with equal ends and equal size).

    Raises:
        BadAudio: The file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with io.BytesIO(audio) if isinstance(audio, bytes) else audio.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            digest.update(f"{size} ".encode() + file.read(_EDGE_BYTES))
            file.seek(max(_EDGE_BYTES, size - _EDGE_BYTES))
            digest.update(file.read(_EDGE_BYTES))
    except OSError as error:
        raise BadAudio(_reason(audio, error)) from error
    return digest.hexdigest()


@lru_cache(maxsize=16)
def _resampler(rate_from: int, rate_to: int) -> Resample:
    """Return torchaudio's band-limited interpolation; its kernel is computed once per pair of rates."""
    return Resample(rate_from, rate_to)


def _openable(audio: Audio) -> str | io.BytesIO:
    return io.BytesIO(audio) if isinstance(audio, bytes) else str(audio)


def _reason(audio: Audio, error: Exception) -> str:
    if isinstance(audio, Path) and not audio.is_file():
        return "no such file"
    if (len(audio) if isinstance(audio, bytes) else audio.stat().st_size) == 0:
        return "an empty file"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "cannot be decoded: " + text.split(": ", 1)[-1][:120]
