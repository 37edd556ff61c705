"""The command line, ``prunus``: one function per command; each turns words into calls and answers into output.

What all commands share (connection, output, exit codes) is in ``service.cli.terminal``.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from prunus.configs import StopReason, __version__
from prunus.service.cli import (
    campaign_tables as group_view,
)
from prunus.service.cli import (
    follow,
    speech_corpus,
    terminal,
)
from prunus.service.cli import (
    tables as render,
)
from prunus.service.cli import (
    up_commands as embedded_commands,
)
from prunus.service.cli.doctor import doctor
from prunus.service.cli.terminal import Commands, IsCampaign, Json, Refs, Url
from prunus.service.client import fetch
from prunus.service.errors import Refused
from prunus.service.submission import shipped_recipes as recipe_files
from prunus.service.wire import JobState, JobView

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=terminal.EPILOG,
    help="prunus trains sparse models on a cluster: submit a recipe, follow it, fetch the checkpoint.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"prunus {__version__}")
        raise typer.Exit()


for _command in (embedded_commands.up, embedded_commands.down, embedded_commands.status, doctor):
    app.command()(_command)


@app.command()
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
    campaign = recipe_files.load_recipe(file, overrides or [], name, max_parallel)
    if dry_run:
        if as_json:
            typer.echo(campaign.model_dump_json(by_alias=True, indent=2))
        else:
            terminal.stdout().print(render.plan_table(campaign))
        if campaign.max_parallel:
            terminal.note(f"at most {campaign.max_parallel} of {len(campaign.jobs)} jobs at a time")
        for line in recipe_files.not_here(campaign):
            terminal.note(f"not on this machine: {line}")
        terminal.note(f"not checked: {', '.join(recipe_files.unchecked(campaign))}")
        return
    with terminal.connect(url, repair=True) as client:
        if client.info().embedded:
            recipe_files.check_local_files(campaign, file)
        view = client.submit(campaign)
        if not (wait or follow_jobs):
            terminal.print_submitted(view, as_json)
            return
        if not as_json:
            terminal.print_submitted(view, as_json=False)
        ids = [job.id for job in view.jobs]
        jobs = terminal.wait_for(client, ids, live=follow_jobs and not as_json, cancel=[view.id])
        if as_json:
            terminal.print_json(view.model_copy(update={"jobs": tuple(jobs)}))
        terminal.exit_by(jobs)


@app.command("plan")
def plan_recipe(
    file: Annotated[str, typer.Argument(help="Recipe: a YAML file, or a name that `prunus recipes` lists.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help="a.b=value; may be repeated.")] = None,
    png: Annotated[Path | None, typer.Option("--png", help="Draw it into this file, too.")] = None,
) -> None:
    """Draw sparsity and learning rate of every job over its steps; needs no server."""
    campaign = recipe_files.load_recipe(file, overrides or [])
    plan = _load("prunus.service.cli.plan")
    if png is not None:
        plan.save_png(campaign, png)
    console = terminal.stdout()
    console.print(plan.page(campaign, console.width))


@app.command("list")
def list_jobs(
    campaign: Annotated[str | None, typer.Option(help="Only jobs of this campaign (name or id).")] = None,
    state: Annotated[list[JobState] | None, typer.Option(case_sensitive=False, help="Only these states.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List jobs, newest first."""
    with terminal.connect(url) as client:
        jobs = client.jobs(campaign, state, limit)
    if as_json:
        terminal.print_json(jobs)
    elif jobs:
        terminal.stdout().print(render.jobs_table(jobs))
    else:
        terminal.note("no jobs")


@app.command("campaigns")
def list_campaigns(
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100, as_json: Json = False, url: Url = None
) -> None:
    """List campaigns with their jobs by state, newest first."""
    with terminal.connect(url) as client:
        campaigns = client.campaigns(limit)
    if as_json:
        terminal.print_json(campaigns)
    elif campaigns:
        terminal.stdout().print(group_view.campaigns_table(campaigns))
    else:
        terminal.note("no campaigns; `prunus list` shows jobs that were submitted alone")


@app.command()
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
    with terminal.connect(url) as client:
        detail, group = (None, client.campaign(ref)) if campaign else follow.look_up(client, ref)
    if detail is not None:
        if state:
            raise Refused(f"--state chooses among the jobs of a campaign, but {ref!r} is a job; leave it out")
        if group is not None:
            terminal.note(f"{ref!r} is a campaign of {group.num_jobs} jobs, too: prunus show --campaign {ref}")
        terminal.print_page(detail, as_json, lambda: render.job_view(detail))
    elif group is not None:
        kept = tuple(job for job in group.jobs if not state or job.state in state)
        shown = group.model_copy(update={"jobs": kept})
        terminal.print_page(shown, as_json, lambda: group_view.campaign_page(shown, fold=not state))


@app.command()
def why(job: Annotated[str, typer.Argument(help="Name, CAMPAIGN/NAME or id.")], url: Url = None) -> None:
    """Tell in one sentence why a job waits, runs or ended; for a failed one, with the end of its log where no
    message says it all."""
    with terminal.connect(url) as client:
        detail = client.job(job)
        typer.echo(f"{detail.name} is {detail.state.value}: {detail.why or 'no reason is recorded'}")
        last = detail.attempts[-1] if detail.attempts else None
        if detail.state is not JobState.FAILED or last is None:
            return
        if last.message and last.message not in detail.why:
            typer.echo(last.message)
        # A mistake of the user's is told by its message; the lines of code that found it help nobody.
        is_told = last.reason is StopReason.USER_ERROR and last.message
        log = "" if is_told else follow.end_of_log(client, detail.id, lines=10)
        if log:
            typer.echo(f"--- end of the driver's log (`prunus logs {detail.id} --driver` prints more of it)\n{log}")


@app.command()
def logs(
    job: Annotated[str, typer.Argument(help="Name, CAMPAIGN/NAME or id.")],
    keep_on: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until the attempt ends.")] = False,
    rank: Annotated[int | None, typer.Option(min=0, help="Log of this rank; default: 0.")] = None,
    driver: Annotated[bool, typer.Option("--driver", help="Output of the attempt's driver instead.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Which launch; default: the newest.")] = None,
    url: Url = None,
) -> None:
    """Print the log of a job."""

    wanted = follow.DRIVER if driver else rank
    written = 0

    def write(data: bytes) -> None:
        nonlocal written
        written += sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    with terminal.connect(url) as client:
        try:
            follow.stream_log(client, job, write, terminal.note, rank=wanted, attempt=attempt, keep_on=keep_on)
        except KeyboardInterrupt:
            terminal.fail(
                f"stopped reading; the job goes on (`prunus cancel {job}` ends it)", terminal.EXIT_INTERRUPTED
            )
        if not written:
            view = client.job(job)
            terminal.note(f"no log yet: {view.name} is {view.state.value}: {view.why}")


@app.command()
def cancel(
    refs: Refs,
    campaign: IsCampaign = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Ask for the end of jobs, or of all jobs of campaigns, waiting ones included; what has ended stays as it is."""
    views: dict[str, JobView] = {}
    with terminal.connect(url) as client:
        targets = [follow.resolve_active(client, ref, campaign=campaign) for ref in refs]
        for target in {target.id: target for target in targets}.values():
            if target.campaign is None:
                ended = target.jobs[0].state.is_terminal
                view = views[target.id] = client.cancel(target.id)
                line = f"{view.name}: {view.state.value}" + (" already, nothing to cancel" if ended else "")
            else:
                answer = client.cancel_campaign(target.id)
                views |= {job.id: job for job in answer.campaign.jobs}
                line = terminal.cancelled_line(answer)
            if not as_json:
                typer.echo(line)
    if as_json:
        terminal.print_json(list(views.values()))


@app.command("wait")
def wait_for(
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
    with terminal.connect(url) as client:
        targets = [follow.resolve(client, ref, campaign=campaign) for ref in refs]
        ids = list(dict.fromkeys(job.id for target in targets for job in target.jobs))
        again = list(dict.fromkeys(target.id for target in targets))
        jobs = terminal.wait_for(client, ids, live=follow_jobs and not as_json, cancel=again, timeout_s=timeout_s)
    if as_json:
        terminal.print_json(jobs)
    going = [job for job in jobs if not job.state.is_terminal]
    if going:
        terminal.fail(
            f"gave up after {timeout_s:g} s, the jobs go on: {terminal.names(going)}; to wait again: "
            f"prunus wait {' '.join(again)}",
            terminal.EXIT_GAVE_UP,
        )
    terminal.exit_by(jobs)


@app.command("fetch")
def fetch_artifact(
    source: Annotated[str, typer.Argument(help="job:NAME, job:ID or models:/NAME@ALIAS.")],
    dest: Annotated[Path, typer.Argument(help="Directory: new, empty, or of an interrupted fetch of the same.")],
    masks_only: Annotated[bool, typer.Option("--masks-only", help="Only the masks.")] = False,
    compact: Annotated[bool, typer.Option("--compact", help="Leave the weights in the compact form.")] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Download a model and its masks, verified; a repeat continues where a cut one stopped."""
    source = fetch.full_source(source)
    with terminal.connect(url) as client, render.byte_progress(Console(stderr=True)) as progress:
        fetched = fetch.fetch(client, source, dest, masks_only=masks_only, compact=compact, progress=progress)
    for line in fetched.notes:
        terminal.note(line)
    if as_json:
        terminal.print_json(fetched)
    else:
        typer.echo(fetched.summary)


@app.command("compare")
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
    comparing = _load("prunus.service.cli.compare")
    comparing.check_installed()
    sources = list(dict.fromkeys(sources))
    with comparing.scratch() as folder:
        places = comparing.local_places(sources)
        if remote := [source for source in sources if source not in places]:
            with terminal.connect(url) as client, render.byte_progress(Console(stderr=True)) as progress:
                places |= comparing.fetch_masks(client, remote, folder, terminal.note, progress, campaign=campaign)
        found = comparing.compare([path for source in sources for path in places[source]], by or [], out, folder)
    if as_json:
        terminal.print_json(found)
    else:
        terminal.stdout().print(_load("prunus.service.cli.comparison_tables").page(found))
    if out is not None:
        terminal.note(f"{out}: comparison.json, README.md, figures")


@app.command("convert")
def convert_directory(
    source: Annotated[Path, typer.Argument(help="A model directory, for example a fetched one.")],
    dest: Annotated[Path, typer.Argument(help="New directory.")],
    to: Annotated[
        Literal["compact", "plain"], typer.Option(help="compact: a bit per position and the values that are not zero.")
    ],
    as_json: Json = False,
) -> None:
    """Write the compact form of a sparse checkpoint, or turn it back to plain safetensors; lossless."""
    converted = _load("prunus.configs.artifacts.compact.convert").convert(source, dest, to)
    if as_json:
        terminal.print_json(converted)
    else:
        typer.echo(converted.summary)


@app.command("inspect")
def inspect_path(
    path: Annotated[Path, typer.Argument(help="Fetched directory, .safetensors file, or masks.")], as_json: Json = False
) -> None:
    """Count the zeros of a checkpoint or mask, per layer and in total."""
    report = _load("prunus.configs.artifacts.inspection").inspect(path)
    if as_json:
        terminal.print_json(report)
    else:
        terminal.stdout().print(render.report_view(report))


@app.command()
def recipes(name: Annotated[str | None, typer.Argument(help="Print this one.")] = None, as_json: Json = False) -> None:
    """List the shipped recipes, or print one."""
    if name is not None:
        typer.echo(recipe_files.find_recipe(name).read_text(encoding="utf-8"), nl=False)
        return
    found = recipe_files.shipped_recipes()
    if as_json:
        typer.echo(json.dumps([{"name": r.name, "description": r.description, "path": str(r.path)} for r in found]))
    else:
        terminal.stdout().print(render.recipes_table(found))


@app.command("make-speech-corpus")
def make_speech_corpus(
    dest: Annotated[Path, typer.Argument(metavar="DIR", help="New, empty, or of a broken-off run of the same.")],
    languages: Annotated[
        str, typer.Option(help="Apart by commas; any that CLDR and espeak-ng know.")
    ] = "es,fr,it,ky,nl,ru,sv,tr,tt,zh",
    minutes: Annotated[float, typer.Option(help="Audio of each language's train split; dev and test: a fifth.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Draws phrases and speakers.")] = 0,
) -> None:
    """Make a spoken corpus in many languages, offline: CLDR's words, espeak-ng's voices, Common Voice's layout."""
    raise typer.Exit(speech_corpus.make(dest, languages, minutes, seed))


def main() -> None:
    """Entry point of the command."""
    app(prog_name="prunus")


def _load(module: str) -> Any:
    """Import a room that brings NumPy when its command is called: 0.1 s that ``--help`` need not pay."""
    return importlib.import_module(module)
