"""Options and arguments that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[
    str | None, typer.Option("--url", envvar="PRUNUS_URL", help="Server; without one the embedded default is used.")
]

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]

Refs = Annotated[list[str], typer.Argument(metavar="JOB|CAMPAIGN...", help="Names, CAMPAIGN/NAME or ids.")]

IsCampaign = Annotated[bool, typer.Option("--campaign", help="It is a campaign, where a job has the same name.")]

Home = Annotated[Path | None, typer.Option("--home", help="Home of the embedded default (PRUNUS_HOME, ~/.prunus).")]
