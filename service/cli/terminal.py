"""The edge of the command line: connection, output, and the one place where an error becomes an exit code.

stdout carries the answer only (with ``--json`` nothing but JSON); progress, notes and errors go to stderr.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import BaseModel
from rich.console import Console, RenderableType
from typer.core import TyperGroup

from prunus.cluster.errors import ClusterError
from prunus.configs import ConfigError
from prunus.configs.errors import ArtifactError, Damaged
from prunus.configs.values.wording import listed
from prunus.service.cli import campaign_tables as group_view
from prunus.service.cli import follow
from prunus.service.cli import tables as render
from prunus.service.client import Client
from prunus.service.errors import ARTIFACT_EXIT_CODES, NotFound, Refused, ServerFault, ServiceError, Unreachable
from prunus.service.local import up as embedded
from prunus.service.local.parts import UpOptions
from prunus.service.settings import Settings
from prunus.service.wire import CampaignCancelled, CampaignView, JobState, JobView

EXIT_NOT_SUCCEEDED = 1
EXIT_USAGE = 2
EXIT_GAVE_UP = 124
EXIT_INTERRUPTED = 130
_MOST_NAMED = 10
"""So many jobs are named one by one."""

EPILOG = (
    f"Exit codes: 0 ok; {EXIT_NOT_SUCCEEDED} a job did not succeed (wait, submit --wait); {EXIT_USAGE} wrong usage or "
    f"recipe; {Unreachable.exit_code} server unreachable; {NotFound.exit_code} not found; {Refused.exit_code} refused; "
    f"{ServerFault.exit_code} fault of the server or of its start; {ARTIFACT_EXIT_CODES[Damaged]} verification failed; "
    f"{EXIT_GAVE_UP} gave up waiting (wait --timeout), the jobs go on; {EXIT_INTERRUPTED} Ctrl-C.  "
    "Environment: PRUNUS_URL, PRUNUS_TOKEN, PRUNUS_HOME (default ~/.prunus), PRUNUS_CPUS."
)

Url = Annotated[
    str | None, typer.Option("--url", envvar="PRUNUS_URL", help="Server; without one the embedded default is used.")
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
Refs = Annotated[list[str], typer.Argument(metavar="JOB|CAMPAIGN...", help="Names, CAMPAIGN/NAME or ids.")]
IsCampaign = Annotated[bool, typer.Option("--campaign", help="It is a campaign, where a job has the same name.")]
Home = Annotated[Path | None, typer.Option("--home", help="Home of the embedded default (PRUNUS_HOME, ~/.prunus).")]


class Commands(TyperGroup):
    """Every error of ours ends here as one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ServiceError as error:
            fail(str(error), error.exit_code)
        except ArtifactError as error:
            fail(str(error), ARTIFACT_EXIT_CODES[type(error)])
        except ConfigError as error:
            fail(str(error), EXIT_USAGE)
        except ClusterError as error:
            fail(str(error), ServerFault.exit_code)
        except KeyboardInterrupt:
            fail("interrupted", EXIT_INTERRUPTED)
        except BrokenPipeError:  # `prunus logs JOB | head`: the reader has enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(128 + signal.SIGPIPE) from None


def connect(url: str | None, *, repair: bool = False) -> Client:
    """Client of the server that is configured, else of the embedded default, which is started if it does not run.

    Args:
        repair: Look at all parts of a running embedded default, and start again what has crashed.
    """
    home = embedded.default_home()
    settings = Settings.load(home=home)
    address = url or settings.url
    if address is None:
        address = None if repair else embedded.running_url(home)
        if address is None:
            if embedded.running_url(home) is None:
                note(f"no server is configured (PRUNUS_URL, --url): using the one in {home}, which `prunus down` ends")
            options = up_options(settings) if embedded.running_url(home) is None else None
            address = embedded.up(home, options, note).server_url
    return Client(address, settings.bearer_token)


def up_options(settings: Settings) -> UpOptions | None:
    """What PRUNUS_* variables bring instead of the embedded parts, as `prunus up` reads them; None: nothing."""
    own_store = Settings.load({}, home=settings.home).store
    options = UpOptions(
        ray_address=settings.ray_address if "ray_address" in settings.model_fields_set else None,
        mlflow_uri=settings.mlflow_uri,
        store=settings.store if settings.store != own_store else None,
        host=settings.host if "host" in settings.model_fields_set else None,
    )
    return options if options != UpOptions() else None


def wait_for(
    client: Client, ids: Sequence[str], *, live: bool, cancel: Sequence[str] = (), timeout_s: float | None = None
) -> list[JobView]:
    """Wait for jobs.

    Args:
        cancel: What `prunus cancel` takes for all of them, told on Ctrl-C; empty: ``ids``.
    """
    try:
        if live:
            return follow.follow(client, ids, stdout(), note, timeout_s=timeout_s)
        return follow.wait_quietly(client, ids, note, timeout_s=timeout_s)
    except KeyboardInterrupt:
        fail(f"stopped looking; the jobs go on. To end them: prunus cancel {' '.join(cancel or ids)}", EXIT_INTERRUPTED)


def exit_by(jobs: Sequence[JobView]) -> None:
    unsuccessful = [job for job in jobs if job.state is not JobState.SUCCEEDED]
    for state in dict.fromkeys(job.state for job in unsuccessful):
        own = [job for job in unsuccessful if job.state is state]
        for job in own[:_MOST_NAMED]:
            note(f"{job.name} is {job.state.value}: {job.why}  (prunus why {job.id})")
        if more := own[_MOST_NAMED:]:
            note(f"{len(more)} more are {state.value}  (prunus show {more[0].campaign_id} --state {state.value})")
    if unsuccessful:
        raise typer.Exit(EXIT_NOT_SUCCEEDED)


def print_submitted(view: CampaignView, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    if len(view.jobs) <= 2 * _MOST_NAMED:
        stdout().print(render.jobs_table(view.jobs))
    else:
        most = f", at most {view.max_parallel} at a time" if view.max_parallel else ""
        typer.echo(f"{view.title}: {group_view.counts_line(view.jobs)}{most}  (prunus show {view.id})")
    note(f"queued; to follow: prunus wait --follow {view.id}")


def print_page(value: BaseModel, as_json: bool, page: Callable[[], RenderableType]) -> None:
    if as_json:
        print_json(value)
    else:
        stdout().print(page())


def cancelled_line(answer: CampaignCancelled) -> str:
    """One line: how many jobs were ended at once, how many were asked to stop, how many had ended before."""
    ids, title, count = set(answer.cancelled), answer.campaign.title, answer.campaign.num_jobs
    now = [job for job in answer.campaign.jobs if job.id in ids]
    before = [job for job in answer.campaign.jobs if job.id not in ids]
    ended = sum(job.state.is_terminal for job in before)
    stopping = f", {len(before) - ended} are stopping" if ended < len(before) else ""
    if not now:
        return f"{title}: nothing to cancel: {ended} of {count} jobs have ended{stopping}"
    asked = sum(not job.state.is_terminal for job in now)
    words = [f"{title}: {len(now)} of {count} jobs cancelled"]
    if asked:
        words.append(f"{asked} of these ran and {'is' if asked == 1 else 'are'} asked to stop")
    if before:
        words.append(f"before that {ended} had ended{stopping}")
    return "; ".join(words)


def names(jobs: Sequence[JobView]) -> str:
    """Names of jobs; of many, the first ones and how many more."""
    return listed([job.name for job in jobs], _MOST_NAMED)


def print_json(value: BaseModel | Sequence[BaseModel]) -> None:
    if isinstance(value, BaseModel):
        typer.echo(value.model_dump_json(by_alias=True, indent=2))
    else:
        typer.echo(json.dumps([item.model_dump(mode="json", by_alias=True) for item in value], indent=2))


def stdout() -> Console:
    """Console for answers; wide when piped, so that rows stay whole."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def note(message: str) -> None:
    typer.echo(message, err=True)


def fail(message: str, code: int) -> NoReturn:
    typer.echo(f"error: {message}" if code != EXIT_INTERRUPTED else f"\n{message}", err=True)
    raise typer.Exit(code)
