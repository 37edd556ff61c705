"""``prunus why``: a sentence, and the end of a log only where it tells more. ``prunus logs``: all of it."""

from pathlib import Path

import pytest

from prunus.configs import StopReason
from prunus.service.errors import NotFound
from tests.service.command_line import Run
from tests.service.world import World, make_spec


def fail(world: World, reason: StopReason) -> None:
    """Let the only attempt of job ``a`` end, with a message and a log."""
    world.cluster.automatic = False
    world.submit(make_spec("a"))
    attempt = world.start("a")
    world.directory("a").rank_log(1, 0).write_text("rank 0\n")
    world.cluster.logs[attempt] = "the driver's words\n"
    world.cluster.finish(attempt, reason, message="the data has no rows")
    world.step()


def test_it_points_to_the_log_whose_end_it_prints(run: Run, world: World) -> None:
    fail(world, StopReason.INTERNAL)
    words = run("why", "a").stdout
    command = f"prunus logs {world.job('a').id} --driver"
    assert f"end of the driver's log (`{command}`" in words and words.endswith("the driver's words\n")
    assert run(*command.split()[1:]).stdout == "the driver's words\n"


def test_a_mistake_of_the_user_is_told_by_its_message_alone(run: Run, world: World) -> None:
    fail(world, StopReason.USER_ERROR)
    assert run("why", "a").stdout == "a is FAILED: attempt 1 ended: user_error: the data has no rows\n"


@pytest.mark.parametrize("option", [(), ("--rank", "0")])
def test_logs_still_has_all_of_it(run: Run, world: World, option: tuple[str, ...]) -> None:
    fail(world, StopReason.USER_ERROR)
    assert run("logs", "a", *option).stdout == "rank 0\n"


def test_a_campaign_in_place_of_a_job_is_told(recipe: Path, run: Run) -> None:
    run("submit", recipe)
    for command in ("why", "logs"):
        result = run(command, "demo")
        assert result.exit_code == NotFound.exit_code
        assert "that is a campaign: name one of its jobs, such as demo/teacher" in result.stderr
    assert run("show", "demo/teacher").exit_code == 0
