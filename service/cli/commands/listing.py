"""Look at jobs and campaigns."""

from typing import Annotated

import typer

from prunus.service.cli.connection import connect
from prunus.service.cli.options import IsCampaign, Json, Url
from prunus.service.cli.shown.campaigns import campaign_page, campaigns_table
from prunus.service.cli.shown.jobs import job_page, jobs_table
from prunus.service.cli.terminal import note, print_json, print_page, stdout
from prunus.service.cli.waiting.references import look_up
from prunus.service.errors import Refused
from prunus.service.wire import JobState


def list_jobs(
    campaign: Annotated[str | None, typer.Option(help="Only jobs of this campaign (name or id).")] = None,
    state: Annotated[list[JobState] | None, typer.Option(case_sensitive=False, help="Only these states.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List jobs, newest first."""
    with connect(url) as client:
        jobs = client.jobs(campaign, state, limit)
    if as_json:
        print_json(jobs)
    elif jobs:
        stdout().print(jobs_table(jobs))
    else:
        note("no jobs")


def list_campaigns(
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100, as_json: Json = False, url: Url = None
) -> None:
    """List campaigns with their jobs by state, newest first."""
    with connect(url) as client:
        campaigns = client.campaigns(limit)
    if as_json:
        print_json(campaigns)
    elif campaigns:
        stdout().print(campaigns_table(campaigns))
    else:
        note("no campaigns; `prunus list` shows jobs that were submitted alone")


def show(
    ref: Annotated[str, typer.Argument(metavar="JOB|CAMPAIGN", help="Name, CAMPAIGN/NAME or id.")],
    campaign: IsCampaign = False,
    state: Annotated[
        list[JobState] | None, typer.Option(case_sensitive=False, help="Of a campaign: only jobs in these states.")
    ] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Show one job (state, attempts, metrics, where its results are), or a campaign (its jobs and their metrics)."""
    with connect(url) as client:
        detail, group = (None, client.campaign(ref)) if campaign else look_up(client, ref)
    if detail is not None:
        if state:
            raise Refused(f"--state chooses among the jobs of a campaign, but {ref!r} is a job; leave it out")
        if group is not None:
            note(f"{ref!r} is a campaign of {group.num_jobs} jobs, too: prunus show --campaign {ref}")
        print_page(detail, as_json, lambda: job_page(detail))
    elif group is not None:
        kept = tuple(job for job in group.jobs if not state or job.state in state)
        shown = group.model_copy(update={"jobs": kept})
        print_page(shown, as_json, lambda: campaign_page(shown, fold=not state))
