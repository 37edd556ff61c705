"""Manifests for the Free Spoken Digit Dataset.

``python -m prunus.jobs.examples.digits RECORDINGS OUT [--held-out SPEAKER]``

Its files are ``DIGIT_SPEAKER_INDEX.wav`` (8 kHz, English, six speakers say each digit fifty times). Writes
``OUT/train.tsv`` and ``OUT/test.tsv`` with columns path, sentence and speaker: every clip of one speaker is held out,
so that what is measured is a voice that no training has heard. Recordings stay where they are.
"""

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NAME = re.compile(r"([0-9])_([a-z]+)_([0-9]+)\.wav")


def speakers_of(recordings: Path) -> dict[str, list[tuple[Path, str]]]:
    """Return speaker -> (file, word said), by speaker, digit and index.

    Raises:
        ValueError: The directory holds no such file.
    """
    found: dict[str, list[tuple[int, int, Path]]] = defaultdict(list)
    for file in recordings.iterdir() if recordings.is_dir() else ():
        if match := _NAME.fullmatch(file.name):
            found[match[2]].append((int(match[1]), int(match[3]), file.absolute()))
    if not found:
        raise ValueError(f"{recordings} holds no file called DIGIT_SPEAKER_INDEX.wav; give the directory of recordings")
    return {
        speaker: [(file, WORDS[digit]) for digit, _, file in sorted(clips)] for speaker, clips in sorted(found.items())
    }


def write(recordings: Path, out: Path, held_out: str) -> dict[str, int]:
    """Write both manifests; returns the number of clips of each.

    Raises:
        ValueError: No recordings, nobody is called ``held_out``, or nobody else is there.
    """
    speakers = speakers_of(recordings)
    if held_out not in speakers or len(speakers) < 2:
        raise ValueError(f"--held-out {held_out}: the speakers are {', '.join(speakers)}; name one, and leave others")
    out.mkdir(parents=True, exist_ok=True)
    counts = {}
    for split in ("train", "test"):
        rows = [
            f"{file}\t{word}\t{speaker}\n"
            for speaker, clips in speakers.items()
            for file, word in clips
            if (speaker == held_out) == (split == "test")
        ]
        (out / f"{split}.tsv").write_text("path\tsentence\tspeaker\n" + "".join(rows), encoding="utf-8")
        counts[split] = len(rows)
    return counts


def main(arguments: list[str]) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser("python -m prunus.jobs.examples.digits", description="manifests of spoken digits")
    parser.add_argument("recordings", type=Path, metavar="RECORDINGS", help="directory of DIGIT_SPEAKER_INDEX.wav")
    parser.add_argument("out", type=Path, metavar="OUT", help="directory of train.tsv and test.tsv")
    parser.add_argument("--held-out", default="theo", metavar="SPEAKER", help="default theo")
    given = parser.parse_args(arguments)
    try:
        counts = write(given.recordings, given.out, given.held_out)
    except ValueError as error:
        parser.error(str(error))
    sys.stdout.write(f"{given.out}: {counts['train']} clips to train on, {counts['test']} of {given.held_out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
