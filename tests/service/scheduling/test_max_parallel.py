"""At most ``max_parallel`` jobs of a campaign hold resources, whatever happens in whatever order."""

import random
from collections import Counter
from collections.abc import Callable

import pytest

from prunus.cluster.executor import Node
from prunus.configs import StopReason
from prunus.service.states import ACTIVE
from prunus.service.wire import JobState
from tests.service.world import World, make_spec

WIDE = (Node("n1", 8.0, 0.0),)


def submit_grid(world: World, name: str, count: int, max_parallel: int | None) -> str:
    return world.submit(*(make_spec(f"{name}-{i}") for i in range(count)), name=name, max_parallel=max_parallel)


def active(world: World) -> Counter[str]:
    """Jobs that hold resources, by campaign: counted from the jobs, not as the scheduler counts them."""
    return Counter(job.campaign_id for job in world.store.jobs(ACTIVE))


def test_the_jobs_of_a_campaign_take_turns_and_the_reason_is_kept(make_world: Callable[..., World]) -> None:
    world = make_world(nodes=WIDE)
    submit_grid(world, "grid", 4, max_parallel=2)
    world.step()
    assert [world.state(f"grid-{i}") for i in range(4)] == [JobState.STARTING] * 2 + [JobState.QUEUED] * 2
    assert world.job("grid-2").why == "waits: campaign grid already runs 2 of its at most 2 jobs"
    world.cluster.finish(world.attempt_id("grid-1"))
    world.step()
    assert [world.state(f"grid-{i}") for i in (0, 2, 3)] == [JobState.STARTING, JobState.STARTING, JobState.QUEUED]


def test_another_campaign_is_not_held_up(make_world: Callable[..., World]) -> None:
    world = make_world(nodes=WIDE)
    submit_grid(world, "slow", 5, max_parallel=1)
    submit_grid(world, "free", 3, max_parallel=None)
    world.step()
    assert active(world) == {world.job("slow-0").campaign_id: 1, world.job("free-0").campaign_id: 3}


def test_a_job_that_is_asked_to_stop_counts_until_its_processes_are_gone(make_world: Callable[..., World]) -> None:
    world = make_world(nodes=WIDE)
    submit_grid(world, "grid", 2, max_parallel=1)
    world.step()
    attempt = world.attempt_id("grid-0")
    world.store.request_stop(world.job("grid-0").id, StopReason.CANCELLED, "cancelled by a user")
    world.step(2)
    assert world.state("grid-1") is JobState.QUEUED
    world.cluster.finish(attempt, StopReason.CANCELLED)
    world.step()
    assert world.state("grid-1") is JobState.STARTING


def test_the_limit_holds_over_a_restart_of_the_server(make_world: Callable[..., World]) -> None:
    world = make_world(nodes=WIDE)
    submit_grid(world, "grid", 3, max_parallel=1)
    world.step()
    world.restart()
    world.step(3)
    assert sum(active(world).values()) == 1


def test_a_pause_for_the_registry_delays_no_other(world: World) -> None:
    world.submit(make_spec("a", resources={"num_ranks": 2}), make_spec("b"))
    world.scheduler._dispatcher._not_before[world.job("a").id] = world.clock.now + 15.0
    world.step()
    assert (world.state("a"), world.state("b")) == (JobState.QUEUED, JobState.STARTING)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_no_campaign_runs_more_than_it_may_and_all_jobs_end(
    make_world: Callable[..., World], seed: int
) -> None:
    rng = random.Random(seed)
    world = make_world(nodes=(Node("n1", 6.0, 0.0), Node("n2", 3.0, 0.0)))
    limits: dict[str, int | None] = {}
    for _ in range(60):
        happen(world, rng, limits)
        check(world, limits)
    world.cluster.reachable = True
    for _ in range(200):
        for job in world.store.jobs(ACTIVE):
            attempt = world.attempt(job.id).id
            if attempt in world.cluster.launches:
                world.cluster.finish(attempt)
        world.step()
        check(world, limits)
        if all(job.state.is_terminal for job in world.store.jobs()):
            return
    raise AssertionError("a job starves")


def check(world: World, limits: dict[str, int | None]) -> None:
    counted = active(world)
    assert all(counted[campaign] <= limit for campaign, limit in limits.items() if limit is not None)


def happen(world: World, rng: random.Random, limits: dict[str, int | None]) -> None:
    """One event, drawn at random; the scheduler steps after it more often than not."""
    going = [job for job in world.store.jobs() if not job.state.is_terminal]
    attempts = [world.attempt(job.id).id for job in going if job.state in ACTIVE]
    known = [attempt for attempt in attempts if attempt in world.cluster.launches]
    event = rng.choice(["submit", "submit", "beat", "finish", "finish", "fail", "lose", "cancel", "group", "ray"])
    if event == "submit" and len(limits) < 5:
        limit = rng.choice([None, 1, 2, 3])
        limits[world.submit(*draw_jobs(rng, f"c{len(limits)}"), name=f"c{len(limits)}", max_parallel=limit)] = limit
    elif event == "beat" and known:
        world.cluster.beat(rng.choice(known), world.clock.now)
    elif event == "finish" and known:
        world.cluster.finish(rng.choice(known))
    elif event == "fail" and known:
        world.cluster.finish(rng.choice(known), StopReason.USER_ERROR, "no rows")
    elif event == "lose" and known:
        world.cluster.say(rng.choice(known), rng.choice(["failed", "stopped", "unknown"]))
        world.clock.tick(40.0)
    elif event == "cancel" and going:
        world.store.request_stop(rng.choice(going).id, StopReason.CANCELLED, "cancelled by a user")
    elif event == "group" and limits and rng.random() < 0.2:
        world.store.cancel_campaign(rng.choice(list(limits)), "cancelled by a user")
    elif event == "ray":
        world.cluster.reachable = rng.random() < 0.7
        if rng.random() < 0.3:
            world.restart()
    if rng.random() < 0.7:
        world.step()


def draw_jobs(rng: random.Random, campaign: str) -> list[object]:
    """Two to six jobs of one to four ranks, some after the one before."""
    return [
        make_spec(
            f"{campaign}-{i}",
            after=[f"{campaign}-{i - 1}"] if i and rng.random() < 0.3 else [],
            resources={"num_ranks": rng.choice([1, 1, 2, 4])},
        )
        for i in range(rng.randint(2, 6))
    ]
