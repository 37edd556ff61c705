"""Bring to this machine what jobs left."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from prunus.service.cli import compare
from prunus.service.cli.comparison_tables import page
from prunus.service.cli.connection import connect
from prunus.service.cli.options import IsCampaign, Json, Url
from prunus.service.cli.shown.transfer import byte_progress
from prunus.service.cli.terminal import note, print_json, stdout
from prunus.service.client.fetch import fetch, full_source


def fetch_artifact(
    source: Annotated[str, typer.Argument(help="job:NAME, job:ID or models:/NAME@ALIAS.")],
    dest: Annotated[Path, typer.Argument(help="Directory: new, empty, or of an interrupted fetch of the same.")],
    masks_only: Annotated[bool, typer.Option("--masks-only", help="Only the masks.")] = False,
    compact: Annotated[bool, typer.Option("--compact", help="Leave the weights in the compact form.")] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Download a model and its masks, verified; a repeat continues where a cut one stopped."""
    source = full_source(source)
    with connect(url) as client, byte_progress(Console(stderr=True)) as progress:
        fetched = fetch(client, source, dest, masks_only=masks_only, compact=compact, progress=progress)
    for line in fetched.notes:
        note(line)
    if as_json:
        print_json(fetched)
    else:
        typer.echo(fetched.summary)


def compare_jobs(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Jobs, campaigns, models:/NAME@ALIAS, or directories (./DIR)."),
    ],
    campaign: IsCampaign = False,
    by: Annotated[
        list[str] | None,
        typer.Option("--by", help="Label or setting that tells curves apart; may be repeated; default: method."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write tables, pictures and JSON into this folder.")] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Compare masks (IOU, beside what chance gives) and metrics against sparsity of jobs that have ended."""
    if out is not None:
        compare.check_installed()
    sources = list(dict.fromkeys(sources))
    with compare.scratch() as folder:
        places = compare.local_places(sources)
        if remote := [source for source in sources if source not in places]:
            with connect(url) as client, byte_progress(Console(stderr=True)) as progress:
                places |= compare.fetch_masks(client, remote, folder, note, progress, campaign=campaign)
        found = compare.compare([path for source in sources for path in places[source]], by or ["method"], out)
    if as_json:
        print_json(found)
    else:
        stdout().print(page(found))
    if out is not None:
        note(f"{out}: comparison.json, README.md, figures")
