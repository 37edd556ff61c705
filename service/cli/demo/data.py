"""The demo's text, speech and models, made offline once."""

import subprocess
import sys
from pathlib import Path

from prunus.configs import ConfigError

HOME = Path(".prunus")

DATA = HOME / "demo-data"

LANGUAGES = ("es", "it", "tr")

MINUTES = "3"

SMALL = ("--channels", "16,16,32,32,32,32,32", "--layers", "3", "--dropout", "0")
"""A wav2vec 2.0 that learns something within the demo's minutes."""


def make_data() -> None:
    """Write the demo's text, speech and models, unless they are there; in processes of their own, for this one has no
    torch.
    """
    languages = ",".join(LANGUAGES)
    for done, module, words in (
        (DATA / "model" / "model.safetensors", "prunus.jobs.examples.text", (str(DATA),)),
        (
            DATA / "speech-model" / "config.json",
            "prunus.jobs.examples.speech_model",
            (str(DATA / "speech-model"), *SMALL),
        ),
        (
            DATA / "speech" / "corpus.json",
            "prunus.jobs.examples.speech_corpus",
            ("--languages", languages, "--minutes", MINUTES, str(DATA / "speech")),
        ),
    ):
        if done.is_file():
            continue
        made = subprocess.run([sys.executable, "-m", module, *words], check=False)  # noqa: S603 - our own modules
        if made.returncode:
            raise ConfigError(
                f"the demo's data could not be made by {module} (exit {made.returncode})",
                remedy="run `make setup` again",
            )
