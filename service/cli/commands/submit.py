"""Queue the jobs of a recipe."""

from typing import Annotated

import typer

from prunus.service.cli.connection import connect
from prunus.service.cli.options import Json, Url
from prunus.service.cli.reporting import exit_by, print_submitted, wait_for
from prunus.service.cli.shown.recipes import plan_table
from prunus.service.cli.terminal import note, print_json, stdout
from prunus.service.errors import Refused
from prunus.service.submission.dry_run import check_local_files, not_here, unchecked
from prunus.service.submission.shipped_recipes import load_recipe


def submit(
    file: Annotated[str, typer.Argument(help="Recipe: a YAML file, or a name that `prunus recipes` lists.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help="a.b=value; may be repeated.")] = None,
    name: Annotated[str | None, typer.Option(help="Another name for the campaign (or the only job).")] = None,
    max_parallel: Annotated[
        int | None, typer.Option(min=1, help="At most so many of its jobs at one time; default: the recipe's.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print the jobs; needs no server.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when all jobs have ended; 0 if all succeeded.")] = False,
    follow_jobs: Annotated[bool, typer.Option("--follow", help="As --wait, with live progress.")] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Queue the jobs of a recipe."""
    if dry_run and (wait or follow_jobs):
        raise Refused("--dry-run queues nothing, so there is nothing to wait for; leave out --wait and --follow")
    campaign = load_recipe(file, overrides or [], name, max_parallel)
    if dry_run:
        if as_json:
            typer.echo(campaign.model_dump_json(by_alias=True, indent=2))
        else:
            stdout().print(plan_table(campaign))
        if campaign.max_parallel:
            note(f"at most {campaign.max_parallel} of {len(campaign.jobs)} jobs at a time")
        for line in not_here(campaign):
            note(f"not on this machine: {line}")
        note(f"not checked: {', '.join(unchecked(campaign))}")
        return
    with connect(url, repair=True) as client:
        if client.info().embedded:
            check_local_files(campaign, file)
        view = client.submit(campaign)
        if not (wait or follow_jobs):
            print_submitted(view, as_json)
            return
        if not as_json:
            print_submitted(view, as_json=False)
        ids = [job.id for job in view.jobs]
        jobs = wait_for(client, ids, live=follow_jobs and not as_json, cancel=[view.id])
        if as_json:
            print_json(view.model_copy(update={"jobs": tuple(jobs)}))
        exit_by(jobs)
