"""What MLflow had not taken is carried over: the publisher stepped by hand around the fake cluster. No MLflow here."""

import json

import pytest

from prunus.configs import SpoolCursor, StopReason
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.service.attempts.spool import Spool
from prunus.service.publishing.deciding import MAX_TRIES, Facts
from prunus.service.publishing.publisher import Publisher
from prunus.service.settings import Settings
from prunus.service.wire import JobState
from tests.service.world import World, finish, make_spec

URI = "http://127.0.0.1:9"

FINISHED = json.dumps({"op": "status", "status": "FINISHED"}) + "\n"

POINT = json.dumps({"op": "metrics", "step": 1, "time": 0, "values": {"loss": 1.0}}) + "\n"


class Mlflow:
    """Answers or not, and counts how often it was asked."""

    def __init__(self) -> None:
        self.up = True
        self.num_questions = 0

    def __call__(self) -> bool:
        self.num_questions += 1
        return self.up


@pytest.fixture
def mlflow() -> Mlflow:
    return Mlflow()


def make_publisher(world: World, mlflow: Mlflow) -> Publisher:
    settings = Settings.load({}, home=world.home, mlflow_uri=URI)
    return Publisher(world.store, world.cluster, settings, mlflow, clock=world.clock)


@pytest.fixture
def publisher(world: World, mlflow: Mlflow) -> Publisher:
    return make_publisher(world, mlflow)


def leave_spool(world: World, name: str, text: str, taken: int | None = None, run_id: str | None = "run-9") -> None:
    directory = world.directory(name)
    write_atomic(directory.spool, text)
    if taken is not None:
        write_atomic(directory.cursor, SpoolCursor(offset=taken, run_id=run_id).model_dump_json())


def finished(world: World, name: str = "a", text: str = POINT + FINISHED, taken: int | None = None) -> str:
    """A job that succeeded and left this spool, a minute ago; returns its id."""
    world.submit(make_spec(name))
    finish(world, name, {"model/config.json": "{}"})
    leave_spool(world, name, text, taken)
    world.clock.tick(60.0)
    return world.job(name).id


def kinds(world: World, name: str = "a") -> list[str]:
    return [event.kind for event in world.store.events(world.job(name).id)]


def facts(**given: object) -> Facts:
    values = {
        "state": JobState.SUCCEEDED,
        "spool": Spool(100, "FINISHED", SpoolCursor(offset=40)),
        "quiet": True,
        "num_tries": 0,
        "running": False,
        "due": True,
    }
    return Facts(**{**values, **given})  # type: ignore[arg-type]


def test_a_spool_that_mlflow_has_is_noted_without_starting_anything(
    world: World, publisher: Publisher, mlflow: Mlflow
) -> None:
    finished(world, taken=len(POINT + FINISHED))
    assert not world.job("a").published
    publisher.step()
    assert world.job("a").published
    assert world.job("a").run_id == "run-9"
    assert kinds(world)[-1] == "published"
    assert world.cluster.publishes == {}
    assert mlflow.num_questions == 0
    num_events = len(kinds(world))
    publisher.step()
    assert len(kinds(world)) == num_events


def test_a_job_that_logged_nothing_is_settled_and_keeps_its_run(world: World, publisher: Publisher) -> None:
    world.submit(make_spec("a"))
    finish(world, "a", {"model/config.json": "{}"})
    world.clock.tick(60.0)
    publisher.step()
    assert world.job("a").published
    assert world.job("a").run_id == f"run-of-{world.job('a').id}"


def test_the_rest_is_carried_over_by_one_try_at_a_time(world: World, publisher: Publisher) -> None:
    job_id = finished(world, taken=len(POINT))
    publisher.step()
    publisher.step()
    assert list(world.cluster.publishes) == [f"{job_id}-p1"]
    assert world.cluster.num_submits[f"{job_id}-p1"] == 1
    launch = world.cluster.publishes[f"{job_id}-p1"]
    assert (launch.job_id, launch.mlflow_uri, launch.job_dir) == (job_id, URI, str(world.directory("a").root))
    world.cluster.carry_over(f"{job_id}-p1", "run-9")
    publisher.step()
    assert world.job("a").published
    assert world.job("a").run_id == "run-9"


def test_nothing_is_tried_while_mlflow_is_away_and_it_is_asked_once_a_step(
    world: World, publisher: Publisher, mlflow: Mlflow
) -> None:
    for name in ("a", "b", "c"):
        finished(world, name)
    mlflow.up = False
    publisher.step()
    assert mlflow.num_questions == 1
    assert world.cluster.publishes == {}
    mlflow.up = True
    publisher.step()
    assert len(world.cluster.publishes) == 3


def test_a_try_that_failed_is_followed_by_a_longer_pause_each_time(world: World, publisher: Publisher) -> None:
    job_id = finished(world)
    for number, pause_s in ((1, 30.0), (2, 60.0), (3, 120.0)):
        publisher.step()
        assert len(world.cluster.publishes) == number
        world.cluster.say(f"{job_id}-p{number}", "failed")
        publisher.step()
        world.clock.tick(pause_s - 1.0)
        publisher.step()
        assert len(world.cluster.publishes) == number
        world.clock.tick(1.0)
    assert not world.job("a").published


def test_after_the_last_try_it_is_given_up_with_one_event_and_a_remedy(
    world: World, publisher: Publisher, mlflow: Mlflow
) -> None:
    job_id = finished(world)
    for number in range(1, MAX_TRIES + 1):
        publisher.step()
        world.cluster.say(f"{job_id}-p{number}", "failed")
        publisher.step()
        world.clock.tick(3600.0)
    for _ in range(3):
        publisher.step()
    make_publisher(world, mlflow).step()  # as after a restart
    assert len(world.cluster.publishes) == MAX_TRIES == 20
    assert kinds(world).count("carry-ended") == 1
    assert "python -m prunus.jobs.tracking.late_publish" in world.store.events(job_id)[-1].message
    leave_spool(world, "a", POINT + FINISHED, taken=len(POINT + FINISHED))  # somebody did it by hand
    publisher.step()
    assert world.job("a").published


def test_a_killed_job_gets_its_status_once_and_only_when_nobody_writes(world: World, publisher: Publisher) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    leave_spool(world, "a", POINT, taken=len(POINT))
    publisher.step()
    world.store.request_stop(world.job("a").id, StopReason.CANCELLED, "asked")
    world.cluster.say(attempt, "stopped")
    world.clock.tick(300.0)  # its heartbeat is old
    world.step(4)
    assert world.state("a") is JobState.CANCELLED
    publisher.step()
    spool = world.directory("a").spool
    assert spool.read_text() == POINT  # its last process may still write
    world.clock.tick(60.0)
    publisher.step()
    publisher.step()
    assert spool.read_text() == POINT + '{"op": "status", "status": "KILLED"}\n'
    assert list(world.cluster.publishes) == [f"{world.job('a').id}-p1"]


def test_a_lost_job_is_failed_in_mlflow_too(world: World, publisher: Publisher) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    leave_spool(world, "a", POINT + '{"op": "met')  # cut in the middle of a line
    world.cluster.finish(attempt, StopReason.USER_ERROR, "no such column")
    world.step()
    world.clock.tick(60.0)
    publisher.step()
    lines = world.directory("a").spool.read_text().splitlines()
    assert lines[1:] == ['{"op": "met', '{"op": "status", "status": "FAILED"}']


def test_a_status_of_another_end_is_corrected(world: World, publisher: Publisher) -> None:
    running = json.dumps({"op": "status", "status": "RUNNING"}) + "\n"
    finished(world, text=running)
    publisher.step()
    assert world.directory("a").spool.read_text() == running + FINISHED


def test_a_job_whose_fence_a_newer_attempt_holds_is_left_alone(world: World, publisher: Publisher) -> None:
    finished(world, text=POINT)
    write_atomic(world.directory("a").fence, str(world.attempt("a").token + 1))
    publisher.step()
    assert world.directory("a").spool.read_text() == POINT
    write_atomic(world.directory("a").fence, str(world.attempt("a").token))
    publisher.step()
    assert world.directory("a").spool.read_text() == POINT + FINISHED


def test_a_job_that_never_had_an_attempt_is_none_of_its_business(world: World, publisher: Publisher) -> None:
    world.submit(make_spec("a"))
    world.store.request_stop(world.job("a").id, StopReason.CANCELLED, "asked")
    publisher.step()
    assert not world.job("a").published
    assert world.store.unpublished(10) == []


def test_after_a_restart_the_running_try_is_taken_up_and_not_repeated(
    world: World, publisher: Publisher, mlflow: Mlflow
) -> None:
    job_id = finished(world)
    publisher.step()
    world.restart()
    again = make_publisher(world, mlflow)
    again.step()
    world.cluster.say(f"{job_id}-p1", "failed")
    again.step()
    assert list(world.cluster.publishes) == [f"{job_id}-p1"]
    world.clock.tick(30.0)
    again.step()
    assert list(world.cluster.publishes) == [f"{job_id}-p1", f"{job_id}-p2"]


def test_a_try_that_ray_calls_running_for_too_long_is_stopped_and_repeated(world: World, publisher: Publisher) -> None:
    job_id = finished(world)
    publisher.step()
    world.cluster.say(f"{job_id}-p1", "running")
    world.clock.tick(1799.0)
    publisher.step()
    assert world.cluster.stops == []
    world.clock.tick(1.0)
    publisher.step()
    assert world.cluster.stops == [f"{job_id}-p1"]
    world.clock.tick(30.0)
    publisher.step()
    assert f"{job_id}-p2" in world.cluster.publishes


def test_while_ray_is_away_no_try_is_counted_and_what_is_complete_is_noted(world: World, publisher: Publisher) -> None:
    finished(world, "done", taken=len(POINT + FINISHED))
    finished(world, "a")  # newer, so it is looked at first
    world.cluster.reachable = False
    publisher.step()
    assert world.job("done").published
    assert "carry" not in kinds(world)
    world.cluster.reachable = True
    publisher.step()
    assert kinds(world).count("carry") == 1


def test_what_ray_refuses_counts_as_a_try(world: World, publisher: Publisher) -> None:
    finished(world)
    world.cluster.refusal = "a bad runtime environment"
    publisher.step()
    publisher.step()
    assert kinds(world).count("carry") == 1
    assert "a bad runtime environment" in world.store.events(world.job("a").id)[-1].message


def test_an_error_of_one_job_does_not_stop_the_others(world: World, publisher: Publisher) -> None:
    finished(world, "good", taken=len(POINT + FINISHED))
    finished(world, "bad")
    world.directory("bad").spool.unlink()
    world.directory("bad").spool.mkdir()
    publisher.step()
    assert world.job("good").published
    assert not world.job("bad").published


def test_at_most_four_tries_run_at_a_time(world: World, publisher: Publisher) -> None:
    for number in range(6):
        finished(world, f"n{number}")
    publisher.step()
    assert len(world.cluster.publishes) == 4
    world.cluster.carry_over(next(iter(world.cluster.publishes)))
    publisher.step()
    assert len(world.cluster.publishes) == 5


def test_every_job_is_reached_page_by_page_the_newest_first(
    world: World, publisher: Publisher, mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunus.service.publishing.publisher._PAGE", 2)
    mlflow.up = False
    for name in ("a", "b", "c"):
        finished(world, name)
    leave_spool(world, "a", POINT + FINISHED, taken=len(POINT + FINISHED))
    assert [job.name for job in world.store.unpublished(2)] == ["c", "b"]
    publisher.step()
    assert not world.job("a").published
    publisher.step()
    assert world.job("a").published
