"""The scheduler stepped by hand, around the fake cluster, under a clock that stands still between steps."""

import json
from collections.abc import Callable

import pytest

from prunus.cluster.executor import Node, Poll
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
    assert world.ended == ["teacher SUCCEEDED"]


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


def test_cancel_of_an_ended_job_changes_nothing(world: World) -> None:
    world.submit(make_spec("a"))
    world.cluster.automatic = True
    world.step(2)
    row = world.store.request_stop(world.job("a").id, StopReason.CANCELLED, "cancelled by a user")
    assert row.state is JobState.SUCCEEDED


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


def test_the_rank_that_failed_first_gives_the_message_where_there_is_no_outcome(world: World) -> None:
    world.submit(make_spec("a", resources={"num_ranks": 2}))
    attempt = world.start("a")
    world.cluster.fail_rank(attempt, 0, StopReason.WORKER_LOST, "lost its peer", time=20.0)
    world.cluster.fail_rank(attempt, 1, StopReason.OUT_OF_MEMORY, "out of memory; halve micro_batch_size", time=10.0)
    world.cluster.say(attempt, "failed")
    world.clock.tick(60.0)
    world.step(3)
    assert world.attempt("a").reason is StopReason.OUT_OF_MEMORY
    assert world.attempt("a").message == "rank 1: out of memory; halve micro_batch_size"


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


def test_a_curve_that_became_nan_hides_neither_progress_nor_outcome(world: World) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    world.cluster.finish(attempt, metrics={"loss/train": float("nan"), "eval/accuracy": 0.25})
    world.step()
    assert world.state("a") is JobState.SUCCEEDED
    assert world.job("a").metrics == {"eval/accuracy": 0.25}


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


def test_the_driver_log_is_kept_when_an_attempt_ends(world: World) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    world.cluster.logs[attempt] = "the driver's words\n"
    world.cluster.finish(attempt)
    world.step()
    assert (world.directory("a").attempt(1) / "driver.log").read_text() == "the driver's words\n"


def test_a_full_disk_at_launch_keeps_the_attempt_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.submit(make_spec("a"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("prunus.service.scheduling.scheduler.write_atomic", full)
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
