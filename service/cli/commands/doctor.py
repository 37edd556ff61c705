"""The command ``prunus doctor``: one line per thing that a job needs, or the repair of torchaudio."""

import json
from typing import Annotated

import typer

from prunus.service.cli import terminal
from prunus.service.cli.options import Json
from prunus.service.doctor import torchaudio_libraries
from prunus.service.doctor.ask import ask
from prunus.service.doctor.lines import Line, can_run_jobs, report
from prunus.service.doctor.lock import locked_versions

CANNOT_RUN_JOBS = 1


def doctor(
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove torchaudio's compiled parts if they do not load, and exit.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what this environment has and lacks, one line each with the remedy; exit 1 if no job could run here."""
    if repair:
        typer.echo(torchaudio_libraries.repair())
        return
    terminal.note("looking; importing what a job imports takes up to a minute")
    lines = report(ask(), locked_versions())
    if as_json:
        typer.echo(json.dumps([line.model_dump() for line in lines], indent=2))
    else:
        for line in lines:
            typer.echo(as_text(line))
    if not can_run_jobs(lines):
        raise typer.Exit(CANNOT_RUN_JOBS)


def as_text(line: Line) -> str:
    """One line of the report as it is printed."""
    remedy = f" -> {line.remedy}" if line.remedy else ""
    return f"{line.state:<9}{line.name:<15}{line.text}{remedy}"
