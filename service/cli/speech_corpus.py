"""``prunus make-speech-corpus``: ``jobs.examples.speech_corpus`` in a process of its own, for this one has no torch."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from prunus.service.errors import Refused

NEEDED = ("babel", "espeakng_loader", "soundfile", "torch", "torchaudio")
"""Packages of the extras ``train`` and ``demo``."""


def make(folder: Path, languages: str, minutes: float, seed: int) -> int:
    """Make the corpus, its output going where ours goes; return the exit code.

    Raises:
        Refused: A package is not installed.
    """
    missing = [package for package in NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        raise Refused(
            f"make-speech-corpus needs what is not installed here: {', '.join(missing)}; "
            "pip install 'prunus[train,demo]'"
        )
    options = [f"--languages={languages}", f"--minutes={minutes}", f"--seed={seed}", "--", str(folder)]
    command = [sys.executable, "-m", "prunus.jobs.examples.speech_corpus", *options]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - our own module
