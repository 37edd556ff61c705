"""Make data to train on; needs no server."""

from pathlib import Path
from typing import Annotated

import typer

from prunus.service.cli.speech_corpus import make


def make_speech_corpus(
    dest: Annotated[Path, typer.Argument(metavar="DIR", help="New, empty, or of a broken-off run of the same.")],
    languages: Annotated[
        str, typer.Option(help="Apart by commas; any that CLDR and espeak-ng know.")
    ] = "es,fr,it,ky,nl,ru,sv,tr,tt,zh",
    minutes: Annotated[float, typer.Option(help="Audio of each language's train split; dev and test: a fifth.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Draws phrases and speakers.")] = 0,
) -> None:
    """Make a spoken corpus in many languages, offline: CLDR's words, espeak-ng's voices, Common Voice's layout."""
    raise typer.Exit(make(dest, languages, minutes, seed))
