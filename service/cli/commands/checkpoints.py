"""Look at a checkpoint of this machine, or write it in another form; needs no server."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from prunus.configs.artifacts.compact.convert import convert
from prunus.configs.artifacts.inspection import inspect
from prunus.service.cli.options import Json
from prunus.service.cli.shown.inspection import report_page
from prunus.service.cli.terminal import print_json, stdout


def convert_directory(
    source: Annotated[Path, typer.Argument(help="A model directory, for example a fetched one.")],
    dest: Annotated[Path, typer.Argument(help="New directory.")],
    to: Annotated[
        Literal["compact", "plain"], typer.Option(help="compact: a bit per position and the values that are not zero.")
    ],
    as_json: Json = False,
) -> None:
    """Write the compact form of a sparse checkpoint, or turn it back to plain safetensors; lossless."""
    converted = convert(source, dest, to)
    if as_json:
        print_json(converted)
    else:
        typer.echo(converted.summary)


def inspect_path(
    path: Annotated[Path, typer.Argument(help="Fetched directory, .safetensors file, or masks.")], as_json: Json = False
) -> None:
    """Count the zeros of a checkpoint or mask, per layer and in total."""
    report = inspect(path)
    if as_json:
        print_json(report)
    else:
        stdout().print(report_page(report))
