"""What is told while jobs run. Pauses of the poll loop move the scheduler on."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from prunus.service.cli import reporting
from tests.service.command_line import Run
from tests.service.world import World


def test_follow_without_a_terminal_prints_a_line_per_change(recipe: Path, run: Run) -> None:
    result = run("submit", recipe, "--follow")
    assert result.exit_code == 0
    states = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("teacher: ")]
    assert states[0] == "QUEUED" and states[-1] == "SUCCEEDED"
    assert states.count("SUCCEEDED") == 1


def test_fifty_jobs_are_followed_by_counts_and_by_what_runs(matrix: Path, run: Run) -> None:
    result = run("submit", matrix, "--follow")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()[1:]
    counts = [line for line in lines if line.startswith("50 jobs: ")]
    assert counts[0] == "50 jobs: 50 QUEUED" and counts[-1] == "50 jobs: 50 SUCCEEDED"
    assert sum("SUCCEEDED" in line for line in lines if line.startswith("ctc-")) == 50
    assert not any("QUEUED" in line for line in lines if line.startswith("ctc-"))


def test_on_a_terminal_the_live_view_fits_and_the_whole_table_stays(
    matrix: Path, run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=15, color_system=None)
    monkeypatch.setattr(reporting, "stdout", lambda: console)
    run("submit", matrix, "--follow")
    written = screen.getvalue()
    assert "50 jobs: 4 SUCCEEDED, 4 STARTING, 42 QUEUED" in written
    last = written[written.rindex("NAME") :]
    assert sum(line.startswith("ctc-") for line in last.splitlines()) == 50
