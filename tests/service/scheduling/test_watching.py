"""What the evidence of a live attempt leads to."""

import pytest

from prunus.cluster.executor import Poll
from prunus.configs import StopReason
from prunus.service.wire import JobState
from tests.service.world import World, make_spec


def test_cancel_of_a_running_job_waits_until_ray_has_said_three_times_that_it_is_over(world: World) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    world.store.request_stop(world.job("a").id, StopReason.CANCELLED, "cancelled by a user")
    assert world.state("a") is JobState.CANCELLING
    world.step()
    assert world.cluster.stops == [attempt]
    world.cluster.say(attempt, "stopped")
    world.clock.tick(5.0)
    world.step(2)
    assert world.state("a") is JobState.CANCELLING
    world.step()
    assert world.state("a") is JobState.CANCELLED
    assert world.attempt("a").reason is StopReason.CANCELLED


def test_cancel_of_a_starting_job_that_ray_may_not_know_ends(world: World) -> None:
    world.submit(make_spec("a"))
    world.step()
    world.store.note(world.attempt("a"), submitted_at=None)
    world.cluster.forget()
    world.store.request_stop(world.job("a").id, StopReason.CANCELLED, "cancelled by a user")
    world.step(3)
    assert world.state("a") is JobState.CANCELLED


def test_a_stop_that_ray_missed_is_sent_again_after_15_seconds(world: World) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    world.store.request_stop(world.job("a").id, StopReason.CANCELLED, "cancelled by a user")
    world.step(15)
    assert world.cluster.stops == [attempt]
    world.step()
    assert world.cluster.stops == [attempt, attempt]


def test_a_success_that_wins_the_race_against_a_cancel_counts(world: World) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    world.store.request_stop(world.job("a").id, StopReason.CANCELLED, "cancelled by a user")
    world.cluster.finish(attempt)
    world.step()
    assert world.state("a") is JobState.SUCCEEDED


def test_a_failure_after_a_cancel_is_the_cancel(world: World) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    world.store.request_stop(world.job("a").id, StopReason.CANCELLED, "cancelled by a user")
    world.cluster.finish(attempt, StopReason.WORKER_LOST, "rank 0 got SIGTERM")
    world.step()
    assert world.state("a") is JobState.CANCELLED


def test_a_stop_that_nobody_asked_us_for_is_not_the_users_cancel(world: World) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    world.cluster.finish(attempt, StopReason.CANCELLED, "the driver was told to stop")
    world.step()
    assert world.state("a") is JobState.FAILED
    assert world.attempt("a").reason is StopReason.PREEMPTED
    assert "nobody asked prunus for it: stopped from outside" in world.job("a").why


def test_a_job_that_runs_longer_than_its_timeout_is_stopped_and_fails(world: World) -> None:
    world.submit(make_spec("a", timeout_s=60.0))
    attempt = world.start("a")
    world.clock.tick(57.0)
    world.step()
    assert world.state("a") is JobState.RUNNING
    world.step(3)
    assert world.state("a") is JobState.CANCELLING
    world.cluster.say(attempt, "stopped")
    world.clock.tick(5.0)
    world.step(3)
    assert world.state("a") is JobState.FAILED
    assert world.attempt("a").reason is StopReason.TIMEOUT
    assert "raise timeout_s" in world.job("a").why


def test_an_outcome_with_another_token_is_ignored_and_noted_once(world: World) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    world.cluster.finish(attempt, token="0")
    world.cluster.say(attempt, "running")
    world.step(3)
    assert world.state("a") is JobState.RUNNING
    stale = [event for event in world.store.events(world.job("a").id) if event.kind == "stale"]
    assert len(stale) == 1
    assert "token 0 was ignored" in stale[0].message


def test_an_outcome_counts_while_ray_does_not_answer(world: World) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    world.cluster.finish(attempt)
    world.cluster.reachable = False
    world.step()
    assert world.state("a") is JobState.SUCCEEDED


def test_ray_is_believed_after_three_agreeing_reads_without_a_heartbeat(world: World) -> None:
    world.submit(make_spec("a"))
    world.step()
    attempt = world.attempt_id("a")
    world.cluster.logs[attempt] = "line 1\nModuleNotFoundError: no module named x\n"
    world.cluster.say(attempt, "failed")
    world.step(2)
    world.cluster.say(attempt, "running")
    world.step()
    world.cluster.say(attempt, "failed")
    world.step(2)
    assert world.state("a") is JobState.STARTING
    world.step()
    assert world.state("a") is JobState.FAILED
    assert world.attempt("a").reason is StopReason.LAUNCH_FAILED
    assert "ModuleNotFoundError" in world.attempt("a").message


def test_a_fresh_heartbeat_outweighs_ray_until_its_lease_is_over(world: World) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    world.cluster.say(attempt, "failed")
    world.step(25)
    assert world.state("a") is JobState.RUNNING
    world.step(10)
    assert world.state("a") is JobState.FAILED
    assert world.attempt("a").reason is StopReason.WORKER_LOST


def test_ray_is_asked_about_an_attempt_once_its_heartbeat_is_silent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    poll = world.cluster.poll

    def ask(attempt_id: str) -> Poll:
        asked.append(attempt_id)
        return poll(attempt_id)

    monkeypatch.setattr(world.cluster, "poll", ask)
    world.submit(make_spec("a"))
    attempt = world.start("a")
    asked.clear()
    for _ in range(4):
        world.cluster.beat(attempt, world.clock.now)
        world.step(5)
    assert asked == []
    world.step(10)  # the heartbeat is 5 to 14 s old
    assert len(asked) == 5
    assert world.state("a") is JobState.RUNNING
