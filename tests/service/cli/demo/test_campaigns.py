"""The demo's campaigns, which share the cores."""

from collections.abc import Iterator

import pytest

from prunus.configs import Launch, StopReason
from prunus.service.cli.demo.campaigns import run_campaigns
from prunus.service.cli.waiting import patience
from prunus.service.client import Client
from prunus.service.submission.shipped_recipes import load_recipe
from prunus.service.wire import JobState
from tests.service.command_line import clock_that
from tests.service.world import World, finish, make_campaign, make_spec


def starting(world: World) -> list[str]:
    return sorted(job.spec.name for job in world.store.jobs() if job.state is JobState.STARTING)


def test_jobs_of_one_rank_run_beside_those_of_the_other_campaign(world: World) -> None:
    """On two cores, whatever the gangs of two ranks leave."""
    for recipe in ("prune_ofa/demo", "parp/demo"):
        world.submitter.submit(load_recipe(recipe))
    for gang in ("teacher", "sparse"):
        world.step()
        assert starting(world) == [gang]
        finish(world, gang, {"model/config.json": "{}"})
    world.step()
    assert starting(world) == ["dense-task", "three-languages"]
    finish(world, "three-languages", {"model/config.json": "{}"})
    world.step()
    assert starting(world) == ["dense-task", "parp-es"]


@pytest.fixture
def clock(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Looking again is a step of the server."""
    monkeypatch.setattr(patience, "time", clock_that(world.step))
    yield


@pytest.mark.usefixtures("clock")
def test_a_campaign_that_fails_does_not_take_the_other_along(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.cluster.automatic = True
    good = make_campaign(make_spec("a"), make_spec("b", "job:a"), name="good")
    bad = make_campaign(make_spec("c"), make_spec("d", "job:c"), name="bad")
    submit = world.cluster.submit

    def fail_c(launch: Launch) -> None:
        submit(launch)
        if launch.job_name == "c":
            world.cluster.finish(launch.attempt_id, StopReason.USER_ERROR, "no such column")

    monkeypatch.setattr(world.cluster, "submit", fail_c)
    ended, nothing = run_campaigns(client, [good, bad])
    assert [job.name for job in ended] == ["a", "b"] and nothing == []
    assert world.state("d") is JobState.SKIPPED

    monkeypatch.setattr(world.cluster, "submit", submit)
    again, mended = run_campaigns(client, [good, bad])
    assert [job.id for job in again] == [job.id for job in ended]
    assert [job.name for job in mended] == ["c", "d"]
