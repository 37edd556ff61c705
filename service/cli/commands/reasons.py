"""Why a job waits or failed, and what it printed."""

import sys
from typing import Annotated

import typer

from prunus.configs import StopReason
from prunus.service.cli.connection import connect
from prunus.service.cli.options import Url
from prunus.service.cli.terminal import EXIT_INTERRUPTED, fail, note
from prunus.service.cli.waiting.logs import end_of_log, stream_log
from prunus.service.wire import DRIVER, JobState


def why(job: Annotated[str, typer.Argument(help="Name, CAMPAIGN/NAME or id.")], url: Url = None) -> None:
    """Tell in one sentence why a job waits, runs or ended; for a failed one, with the end of its log where no
    message says it all."""
    with connect(url) as client:
        detail = client.job(job)
        typer.echo(f"{detail.name} is {detail.state.value}: {detail.why or 'no reason is recorded'}")
        last = detail.attempts[-1] if detail.attempts else None
        if detail.state is not JobState.FAILED or last is None:
            return
        if last.message and last.message not in detail.why:
            typer.echo(last.message)
        # A mistake of the user's is told by its message; the lines of code that found it help nobody.
        is_told = last.reason is StopReason.USER_ERROR and last.message
        log = "" if is_told else end_of_log(client, detail.id, lines=10)
        if log:
            typer.echo(f"--- end of the driver's log (`prunus logs {detail.id} --driver` prints more of it)\n{log}")


def logs(
    job: Annotated[str, typer.Argument(help="Name, CAMPAIGN/NAME or id.")],
    keep_on: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until the attempt ends.")] = False,
    rank: Annotated[int | None, typer.Option(min=0, help="Log of this rank; default: 0.")] = None,
    driver: Annotated[bool, typer.Option("--driver", help="Output of the attempt's driver instead.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Which launch; default: the newest.")] = None,
    url: Url = None,
) -> None:
    """Print the log of a job."""

    wanted = DRIVER if driver else rank
    written = 0

    def write(data: bytes) -> None:
        nonlocal written
        written += sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    with connect(url) as client:
        try:
            stream_log(client, job, write, note, rank=wanted, attempt=attempt, keep_on=keep_on)
        except KeyboardInterrupt:
            fail(f"stopped reading; the job goes on (`prunus cancel {job}` ends it)", EXIT_INTERRUPTED)
        if not written:
            view = client.job(job)
            note(f"no log yet: {view.name} is {view.state.value}: {view.why}")
