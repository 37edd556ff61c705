"""The spool of a job, seen from the server."""

from pathlib import Path

import pytest

from prunus.configs import SpoolCursor
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.service.attempts.spool import Spool, append_status, read_spool
from tests.service.publishing.test_publisher import POINT
from tests.service.world import World, make_spec


def test_only_the_end_of_a_long_spool_is_read_and_it_is_enough(world: World) -> None:
    world.submit(make_spec("a"))
    directory = world.directory("a")
    assert read_spool(directory) is None
    text = POINT * 30_000  # more than a MiB
    write_atomic(directory.spool, text)
    assert read_spool(directory) == Spool(len(text), None, SpoolCursor())
    append_status(directory.spool, "KILLED")
    found = read_spool(directory)
    assert found is not None
    assert found.status == "KILLED"


def test_a_link_is_not_followed_when_writing(tmp_path: Path) -> None:
    target = tmp_path / "other"
    target.write_text("mine")
    (tmp_path / "spool").symlink_to(target)
    with pytest.raises(OSError):
        append_status(tmp_path / "spool", "KILLED")
    assert target.read_text() == "mine"
