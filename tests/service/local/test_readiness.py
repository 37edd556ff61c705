"""Parts that end while they start, or come late."""

from pathlib import Path

import pytest

from prunus.service.errors import StartFailed
from prunus.service.local.state import PartName, read_state
from prunus.service.local.up import status, up
from tests.service.local.test_up import marked


def test_a_part_that_cannot_start_shows_its_log_and_the_others_are_stopped(
    home: Path, modes: dict[PartName, str]
) -> None:
    modes["server"] = "fail"
    with pytest.raises(StartFailed, match=r"(?s)server ended while it started.*the database is on fire"):
        up(home)
    assert marked(home) == []


def test_ray_that_ends_while_it_starts_is_started_again(home: Path, modes: dict[PartName, str]) -> None:
    modes["ray"] = "fail"
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.endswith("starting ray again"):
            modes["ray"] = "good"

    state = up(home, say=say)
    assert any("the database is on fire" in line for line in said)
    assert read_state(home) == state
    assert status(home)["ray"][0] == "running"


def test_ray_is_not_started_for_ever(home: Path, modes: dict[PartName, str]) -> None:
    modes["ray"] = "fail"
    said: list[str] = []
    with pytest.raises(StartFailed, match="ray ended while it started"):
        up(home, say=said.append)
    assert sum(line.endswith("starting ray again") for line in said) == 2
    assert marked(home) == []
