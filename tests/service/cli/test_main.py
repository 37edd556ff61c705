"""The command line as a whole: help, and what every command refuses."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from prunus.service.cli.main import app
from prunus.service.errors import NotFound
from tests.service.command_line import Run


def test_help_names_every_command_and_the_exit_codes() -> None:
    help_text = CliRunner().invoke(app, ["--help"]).stdout
    commands = (
        "up down submit plan list campaigns show why logs cancel wait fetch compare convert inspect recipes "
        "make-speech-corpus"
    )
    for command in commands.split(" "):
        assert f"  {command} " in help_text
    assert "Exit codes: 0 ok; 1 a job did not succeed" in help_text
    assert "124 gave up waiting" in " ".join(help_text.split())


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom prunus.service.cli.main import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print([m for m in ('ray', 'mlflow', 'fastapi', 'sqlalchemy', 'torch') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["show", "why", "logs", "cancel", "wait"])
def test_an_empty_reference_is_refused(run: Run, command: str) -> None:
    result = run(command, "")
    assert result.exit_code == 2 and "'' names no job" in result.stderr


@pytest.mark.parametrize("command", ["show", "why", "logs", "cancel", "wait"])
def test_an_unknown_job_is_not_found(run: Run, command: str) -> None:
    result = run(command, "absent")
    assert result.exit_code == NotFound.exit_code
    assert "absent" in result.stderr and result.stdout == ""


def test_wrong_usage_is_2(run: Run) -> None:
    assert run("submit").exit_code == 2
    assert run("frobnicate").exit_code == 2
    assert run("list", "--state", "asleep").exit_code == 2
