"""The scheduler stepped by hand, around the fake cluster, under a clock that stands still between steps."""

from prunus.configs import StopReason
from prunus.configs.artifacts.manifest import MANIFEST, sha256_file
from prunus.service.wire import JobState
from tests.service.world import World, make_spec


def test_a_chain_runs_parent_first_and_hands_the_manifest_on(world: World) -> None:
    world.submit(make_spec("teacher"), make_spec("student", "job:teacher"))
    assert (world.state("teacher"), world.state("student")) == (JobState.QUEUED, JobState.BLOCKED)
    teacher = world.start("teacher")
    assert world.state("student") is JobState.BLOCKED
    assert "teacher (RUNNING)" in world.job("student").why
    world.cluster.leave_artifact(teacher, {"model/config.json": "{}"})
    world.cluster.finish(teacher, metrics={"eval/accuracy": 0.5})
    world.step()
    assert (world.state("teacher"), world.state("student")) == (JobState.SUCCEEDED, JobState.STARTING)
    launch = world.cluster.launches[world.attempt_id("student")]
    manifest = world.directory("teacher").artifacts / MANIFEST
    assert launch.sources["model"].location == str(manifest.parent)
    assert launch.sources["model"].manifest_sha256 == sha256_file(manifest)
    assert world.job("teacher").metrics == {"eval/accuracy": 0.5}
    assert world.job("teacher").run_id == f"run-of-{world.job('teacher').id}"


def test_children_of_a_failed_job_are_skipped_with_the_reason(world: World) -> None:
    world.submit(make_spec("a"), make_spec("b", "job:a"), make_spec("c", after=["b"]), make_spec("d"))
    attempt = world.start("a")
    world.cluster.finish(attempt, StopReason.USER_ERROR, "no column 'txt'; columns: text, label")
    world.step()  # all of them at once, however deep
    assert [world.state(name) for name in "abcd"] == [
        JobState.FAILED,
        JobState.SKIPPED,
        JobState.SKIPPED,
        JobState.STARTING,
    ]
    assert world.job("a").why == "attempt 1 ended: user_error: no column 'txt'; columns: text, label"
    assert world.job("b").why == "a came first and ended FAILED"
    assert world.job("c").why == "b came first and ended SKIPPED"


def test_cancel_ends_a_waiting_job_at_once_and_skips_what_follows(world: World) -> None:
    world.submit(make_spec("a"), make_spec("b", "job:a"))
    for name in ("b", "a"):
        world.store.request_stop(world.job(name).id, StopReason.CANCELLED, "cancelled by a user")
        assert world.state(name) is JobState.CANCELLED
    world.step()
    assert world.cluster.launches == {}


def test_cancel_of_an_ended_job_changes_nothing(world: World) -> None:
    world.submit(make_spec("a"))
    world.cluster.automatic = True
    world.step(2)
    row = world.store.request_stop(world.job("a").id, StopReason.CANCELLED, "cancelled by a user")
    assert row.state is JobState.SUCCEEDED


def test_a_restarted_server_takes_up_what_runs_and_starts_nothing_twice(world: World) -> None:
    world.submit(make_spec("a"), make_spec("b", "job:a"))
    attempt = world.start("a")
    world.restart()
    world.step(3)
    assert world.state("a") is JobState.RUNNING
    assert world.cluster.num_submits == {attempt: 1}
    world.cluster.leave_artifact(attempt, {"model/config.json": "{}"})
    world.cluster.finish(attempt)
    world.restart()
    world.step()
    assert (world.state("a"), world.state("b")) == (JobState.SUCCEEDED, JobState.STARTING)


def test_ray_not_answering_ends_no_job_however_long(world: World) -> None:
    world.submit(make_spec("a"), make_spec("b"))
    world.start("a")
    world.submit(make_spec("c"))
    world.cluster.reachable = False
    for _ in range(5):
        world.clock.tick(600.0)
        world.step()
    assert world.state("a") is JobState.RUNNING
    assert world.state("c") is JobState.QUEUED
    assert "does not answer" in world.job("c").why
