"""A server that is silent for a while."""

from pathlib import Path
from typing import Any

import pytest

from prunus.service.cli.waiting import patience
from prunus.service.client import Client
from prunus.service.errors import Unreachable
from prunus.service.wire import JobState
from tests.service.command_line import Run, clock_that
from tests.service.world import World


def test_a_server_that_is_silent_for_a_while_does_not_end_the_wait(
    recipe: Path, run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("submit", recipe)
    whole, silences = Client.job, [3]

    def job(client: Client, ref: str) -> Any:
        if silences[0] and world.state("teacher") is not JobState.QUEUED:
            silences[0] -= 1
            raise Unreachable("no answer from the prunus server")
        return whole(client, ref)

    monkeypatch.setattr(Client, "job", job)
    result = run("wait", "demo")
    assert result.exit_code == 0 and silences == [0]
    assert result.stderr.count("looking again") == 1 and "the server answers again" in result.stderr


def test_after_two_minutes_of_silence_the_wait_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    asked: list[float] = []
    monkeypatch.setattr(patience, "time", clock_that(lambda: None))  # every pause is a second

    def ask() -> None:
        asked.append(patience.now())
        raise Unreachable("nobody")

    with pytest.raises(Unreachable, match="nobody"):
        patience.patiently(ask, told.append, poll_s=1.0)
    assert asked == list(range(122))  # 0 .. 120 s are endured, at 121 s it is too long
    assert told == ["nobody; jobs go on meanwhile, looking again for 120 s"]
