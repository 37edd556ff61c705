"""The edge of the command line: output, and the one place where an error becomes an exit code.

stdout carries the answer only (with ``--json`` nothing but JSON); progress, notes and errors go to stderr.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import typer
from pydantic import BaseModel
from rich.console import Console, RenderableType
from typer.core import TyperGroup

from prunus.cluster.errors import ClusterError
from prunus.configs import ConfigError
from prunus.configs.errors import ArtifactError, Damaged
from prunus.service.errors import ARTIFACT_EXIT_CODES, NotFound, Refused, ServerFault, ServiceError, Unreachable

EXIT_NOT_SUCCEEDED = 1
EXIT_USAGE = 2
EXIT_GAVE_UP = 124
EXIT_INTERRUPTED = 130

EPILOG = (
    f"Exit codes: 0 ok; {EXIT_NOT_SUCCEEDED} a job did not succeed (wait, submit --wait); {EXIT_USAGE} wrong usage or "
    f"recipe; {Unreachable.exit_code} server unreachable; {NotFound.exit_code} not found; {Refused.exit_code} refused; "
    f"{ServerFault.exit_code} fault of the server or of its start; {ARTIFACT_EXIT_CODES[Damaged]} verification failed; "
    f"{EXIT_GAVE_UP} gave up waiting (wait --timeout), the jobs go on; {EXIT_INTERRUPTED} Ctrl-C.  "
    "Environment: PRUNUS_URL, PRUNUS_TOKEN, PRUNUS_HOME (default ~/.prunus), PRUNUS_CPUS."
)


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


def print_page(value: BaseModel, as_json: bool, page: Callable[[], RenderableType]) -> None:
    if as_json:
        print_json(value)
    else:
        stdout().print(page())


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
