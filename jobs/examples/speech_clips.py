"""The clips and tables of one language of a spoken corpus, in the layout of Common Voice.

    phrase (``speech_phrases``) -> split by its hash -> a speaker of that split -> phones and samples (``espeak``)
        -> 16 kHz -> clips/LANGUAGE_000001.flac, a line of train.tsv, dev.tsv or test.tsv, a line of clip_durations.tsv

Neither a phrase nor a speaker is in two splits; words recur. The same seed and versions give the same bytes, in a
process in which espeak-ng has not spoken before.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from babel import Locale
from numpy.typing import NDArray

from prunus.jobs.errors import DataError
from prunus.jobs.examples import espeak
from prunus.jobs.examples.espeak import Espeak, Voice
from prunus.jobs.examples.speech_phrases import phrases_of

SAMPLE_RATE = 16000
"""Hz, as wav2vec 2.0 reads it."""
MIN_CLIP_S, MAX_CLIP_S = 0.6, 8.0
MIN_HELD_OUT_S = 30.0
SHARES = {"train": 5, "dev": 1, "test": 1}
"""Of the audio, and of all phrases."""
SPEAKERS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "male": ("m1", "m3", "m4", "m7", "Alex", "Michael"),
        "female": ("f1", "f4", "Annie", "anika", "linda", "belinda"),
    },
    "dev": {"male": ("m6", "Denis"), "female": ("Andrea", "grandma")},
    "test": {"male": ("m2", "Mario"), "female": ("steph", "aunty")},
}
"""Variants of espeak-ng's voices. Not among them: robots, whispers, those that overdrive (paul, Gene, Marco), and those
whose samples differ from run to run because espeak-ng 1.52 reads memory that it never set (f2, f3, f5, Alicia)."""
COLUMNS = (
    "client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes",
    "age", "gender", "accents", "variant", "locale", "segment", "phones",
)  # fmt: skip
"""Common Voice's, and ``phones``: what is said, in IPA, apart by spaces."""

_SLACK_S = 1.0
_MAX_UNFIT = 1000
"""Phrases in a row: with so many, going on through hundreds of millions would not help."""
_GENDERS = {"male": "male_masculine", "female": "female_feminine"}  # Common Voice's words


@dataclass(frozen=True)
class Speaker:
    """Who speaks: a variant with a rate and a pitch that the seed gave it."""

    client_id: str
    gender: str
    voice: Voice


@dataclass(frozen=True)
class Clip:
    """One clip: ``seconds`` long, said by ``speaker``."""

    split: str
    text: str
    phones: tuple[str, ...]
    speaker: Speaker
    samples: NDArray[np.int16]

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


def write_language(folder: Path, language: str, voice: str, minutes: float, seed: int) -> None:
    """Write clips and tables of one language.

    Args:
        folder: New.
        language: As babel knows it; the ``locale`` of the tables.
        voice: As espeak-ng knows it.
        minutes: Audio of the train split; dev and test have a fifth each, at least half a minute.
        seed: Draws phrases and speakers.

    Raises:
        DataError: The language has too few phrases.
    """
    (folder / "clips").mkdir(parents=True)
    tables = {split: ["\t".join(COLUMNS)] for split in SHARES}
    durations = ["clip\tduration[ms]"]
    for number, clip in enumerate(_clips(language, voice, wanted_seconds(minutes), seed), start=1):
        name = f"{language}_{number:06d}.flac"
        soundfile.write(folder / "clips" / name, clip.samples, SAMPLE_RATE, subtype="PCM_16")
        tables[clip.split].append("\t".join(_row(clip, name, language)))
        durations.append(f"{name}\t{round(1000 * clip.seconds)}")
    for table, lines in {**tables, "clip_durations": durations}.items():
        (folder / f"{table}.tsv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def wanted_seconds(minutes: float) -> dict[str, float]:
    """Seconds of each split; what is made differs by a second at most."""
    return {
        split: 60 * minutes if split == "train" else max(60 * minutes * share / SHARES["train"], MIN_HELD_OUT_S)
        for split, share in SHARES.items()
    }


def split_of(text: str) -> str:
    """Return the split of a phrase; it depends on the text alone."""
    draw = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") % sum(SHARES.values())
    return next(split for split, end in zip(SHARES, accumulate(SHARES.values()), strict=True) if draw < end)


def speakers(split: str, language: str, voice: str, seed: int) -> list[Speaker]:
    """Return the speakers of a split, each with a rate and a pitch of its own."""
    found = []
    for gender, variants in SPEAKERS[split].items():
        for variant in variants:
            rng = random.Random(f"{seed}:{language}:{variant}")  # noqa: S311 - reproducible, not secret
            own = Voice(voice, variant, rng.randint(110, 165), rng.randint(40, 60), rng.randint(35, 65))
            found.append(Speaker(f"{language}-{variant.lower()}", gender, own))
    return found


def _clips(language: str, voice: str, wanted: dict[str, float], seed: int) -> Iterator[Clip]:
    phrases = phrases_of(Locale.parse(language, sep="-"))
    rng = random.Random(f"{seed}:{language}")  # noqa: S311 - reproducible, not secret
    cast = {split: speakers(split, language, voice, seed) for split in SHARES}
    engine = Espeak()
    torch.set_num_threads(1)  # a fork of a process whose threads torch would wait for
    resample = torchaudio.transforms.Resample(espeak.SAMPLE_RATE, SAMPLE_RATE)
    missing, unfit = dict(wanted), 0
    for text in phrases.draw(seed):
        split = split_of(text)
        if split not in missing:
            continue
        speaker = cast[split][rng.randrange(len(cast[split]))]
        clip = _speak(text, split, speaker, engine, resample)
        if clip is None or clip.seconds > missing[split] + _SLACK_S:
            unfit += 1
            if unfit == _MAX_UNFIT:
                break
            continue
        unfit = 0
        yield clip
        missing[split] -= clip.seconds
        if missing[split] <= _SLACK_S:
            del missing[split]
        if not missing:
            return
    lacking = ", ".join(f"{split} {left / 60:.1f} of {wanted[split] / 60:.1f} min" for split, left in missing.items())
    raise DataError(
        f"{language}: among {len(phrases)} phrases are too few that take {MIN_CLIP_S:g} to {MAX_CLIP_S:g} s to say; "
        f"missing: {lacking}; ask for fewer minutes, or leave {language} out"
    )


def _speak(text: str, split: str, speaker: Speaker, engine: Espeak, resample: torch.nn.Module) -> Clip | None:
    """Say a phrase; None if it is too short, too long, or in part in another language."""
    ipa = engine.ipa(text, speaker.voice)
    if "(" in ipa:
        return None
    spoken = resample(torch.from_numpy(engine.say(text, speaker.voice).astype(np.float32)))
    samples = spoken.round().clamp(-(2**15), 2**15 - 1).to(torch.int16).numpy()
    clip = Clip(split, text, tuple(espeak.phones(ipa, speaker.voice.language)), speaker, samples)
    return clip if MIN_CLIP_S <= clip.seconds <= MAX_CLIP_S else None


def _row(clip: Clip, name: str, language: str) -> list[str]:
    known = {
        "client_id": clip.speaker.client_id,
        "path": name,
        "sentence_id": hashlib.sha256(clip.text.encode()).hexdigest(),
        "sentence": clip.text,
        "up_votes": "0",
        "down_votes": "0",
        "gender": _GENDERS[clip.speaker.gender],
        "locale": language,
        "phones": " ".join(clip.phones),
    }
    return [known.get(column, "") for column in COLUMNS]
