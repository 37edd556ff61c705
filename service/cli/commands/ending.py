"""Wait for the end of jobs, or ask for it."""

from typing import Annotated

import typer

from prunus.service.cli.connection import connect
from prunus.service.cli.options import IsCampaign, Json, Refs, Url
from prunus.service.cli.reporting import cancelled_line, exit_by, names, wait_for
from prunus.service.cli.terminal import EXIT_GAVE_UP, fail, print_json
from prunus.service.cli.waiting.references import resolve, resolve_active
from prunus.service.wire import JobView


def cancel(
    refs: Refs,
    campaign: IsCampaign = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Ask for the end of jobs, or of all jobs of campaigns, waiting ones included; what has ended stays as it is."""
    views: dict[str, JobView] = {}
    with connect(url) as client:
        targets = [resolve_active(client, ref, campaign=campaign) for ref in refs]
        for target in {target.id: target for target in targets}.values():
            if target.campaign is None:
                ended = target.jobs[0].state.is_terminal
                view = views[target.id] = client.cancel(target.id)
                line = f"{view.name}: {view.state.value}" + (" already, nothing to cancel" if ended else "")
            else:
                answer = client.cancel_campaign(target.id)
                views |= {job.id: job for job in answer.campaign.jobs}
                line = cancelled_line(answer)
            if not as_json:
                typer.echo(line)
    if as_json:
        print_json(list(views.values()))


def wait(
    refs: Refs,
    campaign: IsCampaign = False,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", min=0.0, help="Give up after so many seconds; the jobs go on.")
    ] = None,
    follow_jobs: Annotated[bool, typer.Option("--follow", help="With live progress.")] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Return when the jobs have ended: 0 only if all succeeded, 124 if the timeout was over first."""
    with connect(url) as client:
        targets = [resolve(client, ref, campaign=campaign) for ref in refs]
        ids = list(dict.fromkeys(job.id for target in targets for job in target.jobs))
        again = list(dict.fromkeys(target.id for target in targets))
        jobs = wait_for(client, ids, live=follow_jobs and not as_json, cancel=again, timeout_s=timeout_s)
    if as_json:
        print_json(jobs)
    going = [job for job in jobs if not job.state.is_terminal]
    if going:
        fail(
            f"gave up after {timeout_s:g} s, the jobs go on: {names(going)}; to wait again: "
            f"prunus wait {' '.join(again)}",
            EXIT_GAVE_UP,
        )
    exit_by(jobs)
