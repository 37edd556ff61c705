"""From the queue to Ray."""

import json
from collections.abc import Callable

import pytest

from prunus.cluster.executor import Node
from prunus.configs import StopReason
from prunus.service.wire import JobState
from tests.service.world import World, make_spec


def test_what_ray_hears_is_in_the_database_first(world: World) -> None:
    world.submit(make_spec("a"))
    world.cluster.reachable = True
    world.step()
    attempt = world.attempt("a")
    launch = world.cluster.launches[attempt.id]
    assert attempt.id == f"{world.job('a').id}-a1"
    assert launch.token == str(attempt.token)
    on_disk = json.loads(world.directory("a").launch(1).read_text())
    assert (on_disk["attempt_id"], on_disk["token"]) == (attempt.id, str(attempt.token))


def test_a_server_that_died_between_commit_and_submission_submits_the_same_attempt(world: World) -> None:
    world.submit(make_spec("a"))
    job = world.job("a")
    attempt = world.store.begin_attempt(job, ["node-1"], "1 rank")
    world.restart()
    world.step()
    assert list(world.cluster.launches) == [attempt.id]
    assert world.attempt("a").token == attempt.token
    assert world.attempt("a").submitted_at is not None


def test_a_server_that_died_between_submission_and_its_note_adopts_the_attempt(world: World) -> None:
    world.submit(make_spec("a"))
    world.step()
    attempt = world.attempt("a")
    world.store.note(attempt, submitted_at=None)
    world.restart()
    world.step()
    assert world.cluster.num_submits == {attempt.id: 2}
    assert len(world.store.attempts([world.job("a").id])[world.job("a").id]) == 1


def test_a_gang_that_does_not_fit_waits_whole_and_says_why(world: World) -> None:
    world.submit(make_spec("a"))
    first = world.start("a")
    world.submit(make_spec("pair", resources={"num_ranks": 2}))
    world.step()
    assert world.state("pair") is JobState.QUEUED
    assert world.job("pair").why == "2 ranks x 1 CPU needed, 1 of 2 CPUs free; running: a"
    world.cluster.finish(first)
    world.step()
    assert world.state("pair") is JobState.STARTING
    assert world.attempt("pair").placement == ("node-1", "node-1")


def test_the_same_reason_to_wait_is_logged_once(world: World) -> None:
    world.submit(make_spec("a", resources={"num_ranks": 2}))
    world.start("a")
    world.submit(make_spec("b"))
    world.step(10)
    kinds = [event.kind for event in world.store.events(world.job("b").id)]
    assert kinds == ["submitted", "waits"]


def test_a_refusal_by_ray_fails_the_job_with_its_words(world: World) -> None:
    world.cluster.refusal = "runtime_env is not valid"
    world.submit(make_spec("a"))
    world.step()
    assert world.state("a") is JobState.FAILED
    assert world.attempt("a").reason is StopReason.LAUNCH_FAILED
    assert "runtime_env is not valid" in world.job("a").why


def test_a_full_disk_at_launch_keeps_the_attempt_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.submit(make_spec("a"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("prunus.service.scheduling.dispatching.write_atomic", full)
        world.step()
    assert world.state("a") is JobState.STARTING
    assert "No space left on device" in world.job("a").why
    world.step()
    assert world.cluster.num_submits == {world.attempt_id("a"): 1}


def test_two_nodes_hold_a_gang_that_one_cannot(make_world: Callable[..., World]) -> None:
    world = make_world(nodes=(Node("n1", 2.0, 0.0), Node("n2", 1.0, 0.0)))
    world.submit(
        make_spec("trio", resources={"num_ranks": 3}, train={"num_steps": 1, "batch_size": 3, "lr": {"peak": 1e-3}})
    )
    world.step()
    assert world.attempt("trio").placement == ("n1", "n1", "n2")
