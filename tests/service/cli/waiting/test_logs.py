"""A log that is followed."""

from pathlib import Path

import pytest

from prunus.service.cli.waiting import patience
from tests.service.command_line import Run, clock_that
from tests.service.world import World


def test_a_followed_log_goes_on_until_the_attempt_has_ended(
    recipe: Path, run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.cluster.automatic = False
    run("submit", recipe)
    attempt = world.start("teacher")
    log = world.directory("teacher").rank_log(1, 0)
    log.write_text("step 1\n")
    later = iter(["step 2\n", "step 3\n"])

    def train() -> None:
        line = next(later, None)
        if line is None:
            world.cluster.finish(attempt)
            world.step()
        else:
            log.write_text(log.read_text() + line)

    monkeypatch.setattr(patience, "time", clock_that(train))
    assert run("logs", "-f", "teacher").stdout == "step 1\nstep 2\nstep 3\n"
