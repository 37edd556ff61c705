"""The command line, ``prunus``: which commands there are, in the order of ``prunus --help``.

options (shared words)  connection (which server)  terminal (output, exit codes)  reporting (how jobs ended)
commands/   one function per command: turns words into calls and answers into output
shown/      what people see: tables and the words in them
waiting/    the poll loop behind ``wait``, ``--follow`` and ``logs -f``
drawing/    ``prunus plan``            demo/   ``make demo``
"""

from typing import Annotated

import typer

from prunus.configs import __version__
from prunus.service.cli.commands import artifacts, checkpoints, corpus, embedded, ending, listing, reasons, recipes
from prunus.service.cli.commands.doctor import doctor
from prunus.service.cli.commands.submit import submit
from prunus.service.cli.terminal import EPILOG, Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=EPILOG,
    help="prunus trains sparse models on a cluster: submit a recipe, follow it, fetch the checkpoint.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"prunus {__version__}")
        raise typer.Exit()


app.command("up")(embedded.start)
app.command("down")(embedded.end)
app.command("status")(embedded.show_parts)
app.command("doctor")(doctor)
app.command("submit")(submit)
app.command("plan")(recipes.plan)
app.command("list")(listing.list_jobs)
app.command("campaigns")(listing.list_campaigns)
app.command("show")(listing.show)
app.command("why")(reasons.why)
app.command("logs")(reasons.logs)
app.command("cancel")(ending.cancel)
app.command("wait")(ending.wait)
app.command("fetch")(artifacts.fetch_artifact)
app.command("compare")(artifacts.compare_jobs)
app.command("convert")(checkpoints.convert_directory)
app.command("inspect")(checkpoints.inspect_path)
app.command("recipes")(recipes.recipes)
app.command("make-speech-corpus")(corpus.make_speech_corpus)


def main() -> None:
    """Entry point of the command."""
    app(prog_name="prunus")
