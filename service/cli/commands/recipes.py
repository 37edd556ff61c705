"""Look at recipes before anything runs; needs no server."""

import json
from pathlib import Path
from typing import Annotated

import typer

from prunus.service.cli.drawing.page import page
from prunus.service.cli.drawing.picture import save_png
from prunus.service.cli.options import Json
from prunus.service.cli.shown.recipes import recipes_table
from prunus.service.cli.terminal import stdout
from prunus.service.submission.shipped_recipes import find_recipe, load_recipe, shipped_recipes


def recipes(name: Annotated[str | None, typer.Argument(help="Print this one.")] = None, as_json: Json = False) -> None:
    """List the shipped recipes, or print one."""
    if name is not None:
        typer.echo(find_recipe(name).read_text(encoding="utf-8"), nl=False)
        return
    found = shipped_recipes()
    if as_json:
        typer.echo(json.dumps([{"name": r.name, "description": r.description, "path": str(r.path)} for r in found]))
    else:
        stdout().print(recipes_table(found))


def plan(
    file: Annotated[str, typer.Argument(help="Recipe: a YAML file, or a name that `prunus recipes` lists.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help="a.b=value; may be repeated.")] = None,
    png: Annotated[Path | None, typer.Option("--png", help="Draw it into this file, too.")] = None,
) -> None:
    """Draw sparsity and learning rate of every job over its steps; needs no server."""
    campaign = load_recipe(file, overrides or [])
    if png is not None:
        save_png(campaign, png)
    console = stdout()
    console.print(page(campaign, console.width))
