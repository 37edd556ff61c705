"""``prunus wait`` and ``prunus cancel``. Pauses of the poll loop move the scheduler on."""

import json
from pathlib import Path

import pytest

from prunus.configs import StopReason
from prunus.service.cli.waiting import patience
from prunus.service.client import Client
from prunus.service.wire import JobState
from tests.service.command_line import Run, clock_that, states
from tests.service.world import World, make_spec


def test_wait_gives_1_when_a_job_did_not_succeed(recipe: Path, run: Run, world: World) -> None:
    world.cluster.automatic = False
    run("submit", recipe)
    attempt = world.start("teacher")
    world.cluster.finish(attempt, StopReason.USER_ERROR, message="the data has no rows")
    result = run("wait", "demo")
    assert result.exit_code == 1
    assert "teacher is FAILED" in result.stderr and "student is SKIPPED" in result.stderr
    assert result.stdout == ""
    reason = run("why", "teacher").stdout
    assert reason.startswith("teacher is FAILED:") and "the data has no rows" in reason


def test_wait_gives_up_after_its_time(recipe: Path, run: Run, world: World) -> None:
    world.cluster.automatic = False
    run("submit", recipe)
    result = run("wait", "teacher", "--timeout", "3", "--json")
    assert result.exit_code == 124
    assert "gave up after 3 s, the jobs go on: teacher" in result.stderr
    assert [job["name"] for job in json.loads(result.stdout)] == ["teacher"]
    assert not world.state("teacher").is_terminal
    assert run("wait", "teacher", "--timeout", "-1").exit_code == 2


def test_ctrl_c_while_waiting_leaves_the_job_and_says_how_to_cancel(
    recipe: Path, run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    run("submit", recipe)
    monkeypatch.setattr(patience, "time", clock_that(interrupt))
    result = run("wait", "teacher")
    assert result.exit_code == 130
    assert f"prunus cancel {world.job('teacher').id}" in result.stderr
    assert world.state("teacher") is JobState.QUEUED


def test_cancel_of_a_campaign_ends_all_that_has_not_ended_and_can_be_repeated(
    matrix: Path, run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.cluster.automatic = False
    run("submit", matrix)
    world.submit(make_spec("other"))
    world.step()
    world.cluster.finish(world.attempt_id("ctc-es-1"))
    world.step()
    monkeypatch.setattr(Client, "cancel", None)  # Not one call for each job.
    result = run("cancel", "grid")
    assert result.exit_code == 0
    assert (
        result.stdout
        == "grid: 49 of 50 jobs cancelled; 4 of these ran and are asked to stop; before that 1 had ended\n"
    )
    assert run("cancel", "grid").stdout == "grid: nothing to cancel: 46 of 50 jobs have ended, 4 are stopping\n"
    world.step()
    assert len(world.cluster.stops) == 4
    for attempt in world.cluster.stops:
        world.cluster.finish(attempt, StopReason.CANCELLED)
    world.step()
    assert states(run) == {"SUCCEEDED": 1, "CANCELLED": 49}
    assert run("cancel", "grid").stdout == "grid: nothing to cancel: 50 of 50 jobs have ended\n"
    assert world.state("other") is JobState.STARTING
    assert run("wait", "grid").exit_code == 1


def test_a_name_of_a_job_and_a_campaign_is_refused_with_the_way_to_say_which(run: Run, world: World) -> None:
    world.cluster.automatic = False
    twins = world.submit(make_spec("a"), make_spec("b"), name="twin")
    world.submit(make_spec("twin"))
    job = world.job("twin").id
    for command in ("cancel", "wait"):
        refused = run(command, "twin")
        assert refused.exit_code == 2
        assert f"'twin' is a job ({job}) and a campaign of 2 jobs ({twins}); write {twins}, or" in refused.stderr
    shown = run("show", "twin")
    assert job in shown.stdout and "prunus show --campaign twin" in shown.stderr
    assert json.loads(run("show", "--campaign", "twin", "--json").stdout)["id"] == twins
    assert run("cancel", "twin", "--campaign").stdout.startswith("twin: 2 of 2 jobs cancelled")
    assert run("cancel", job).stdout == "twin: CANCELLED\n"
    assert run("cancel", "--campaign", "a").exit_code == 3


def test_a_campaign_of_one_job_of_its_name_is_not_ambiguous(run: Run, world: World) -> None:
    world.submit(make_spec("solo"), name="solo")
    assert run("wait", "solo").exit_code == 0
    assert run("show", "solo").stderr == ""
    assert run("cancel", "solo").stdout == "solo: SUCCEEDED already, nothing to cancel\n"


def test_a_name_that_several_jobs_have_cancels_none_of_them(run: Run, world: World) -> None:
    world.cluster.automatic = False
    first = world.submit(make_spec("a"), make_spec("b"), name="first")
    second = world.submit(make_spec("a"), make_spec("b"), name="second")
    result = run("cancel", "a")
    assert result.exit_code == 2
    ids = {job.campaign_id: job.id for job in world.store.jobs() if job.spec.name == "a"}
    assert result.stderr == (
        f"error: 2 jobs named 'a' have not ended: second/a ({ids[second]}), first/a ({ids[first]}); name one of them\n"
    )
    assert not any(job.state.is_terminal for job in world.store.jobs())
    assert run("cancel", "second/a").exit_code == 0  # the newest: the name means the other one now
    assert run("cancel", "a").stdout == "a: CANCELLED\n"
    assert world.store.find_job(ids[first]).state is JobState.CANCELLED


def test_jobs_and_campaigns_may_be_cancelled_together(run: Run, world: World) -> None:
    world.cluster.automatic = False
    campaign = world.submit(make_spec("a"), make_spec("b", "job:a"), name="pair")
    world.submit(make_spec("c"))
    result = run("cancel", "c", "pair", campaign, "--json")
    assert {job["name"]: job["state"] for job in json.loads(result.stdout)} == dict.fromkeys("cab", "CANCELLED")
    assert run("cancel", "c", "nope").exit_code == 3


def test_many_failures_are_named_up_to_ten_and_counted(matrix: Path, run: Run, world: World) -> None:
    run("submit", matrix)
    run("cancel", "grid")
    told = run("wait", "grid").stderr.splitlines()
    assert sum(" is CANCELLED: " in line for line in told) == 10
    assert told[-1].startswith("40 more are CANCELLED  (prunus show c-") and told[-1].endswith("--state CANCELLED)")


def test_ctrl_c_names_the_campaign_not_its_fifty_jobs(
    matrix: Path, run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    run("submit", matrix)
    monkeypatch.setattr(Client, "jobs", interrupt)
    result = run("wait", "grid")
    assert result.exit_code == 130
    assert result.stderr.strip().endswith(f"prunus cancel {world.job('ctc-es-1').campaign_id}")
