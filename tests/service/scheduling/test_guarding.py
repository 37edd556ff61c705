"""One job's trouble is not the others'."""

import pytest

from prunus.service.wire import JobState
from tests.service.world import World, make_spec


def test_one_unreadable_job_does_not_stop_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.submit(make_spec("a"), make_spec("b"))
    world.step()
    broken, fine = world.attempt_id("a"), world.attempt_id("b")
    poll = world.cluster.poll
    monkeypatch.setattr(world.cluster, "poll", lambda i: 1 / 0 if i == broken else poll(i))
    world.cluster.finish(fine)
    world.step()
    assert (world.state("a"), world.state("b")) == (JobState.STARTING, JobState.SUCCEEDED)


def test_a_row_that_cannot_be_read_stops_no_other_and_what_waits_for_it_is_skipped(world: World) -> None:
    world.submit(make_spec("bad"), make_spec("child", "job:bad"), make_spec("good"))
    bad = world.job("bad").id
    with world.store._database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET spec = '{}' WHERE name = 'bad'")
    world.step(2)
    assert (world.state("good"), world.state("child")) == (JobState.STARTING, JobState.SKIPPED)
    assert f"{bad}, which cannot be read," in world.job("child").why
