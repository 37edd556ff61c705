"""Campaigns as groups on the command line: list, show, cancel, wait and follow many jobs."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from prunus.cluster.executor import Node
from prunus.configs import StopReason
from prunus.service.cli import terminal
from prunus.service.client import Client
from prunus.service.wire import JobDetail, JobState, JobView
from tests.service.command_line import Run
from tests.service.world import World, make_spec

MATRIX = """\
# One job per language.
campaign: grid
max_parallel: 4
matrix: {language: [es, fr, it, ky, nl, ru, sv, tr, tt, zh], seed: [1, 2, 3, 4, 5]}
jobs:
  - name: ctc
    task: {name: classification, data: {train: {files: [rows.csv]}, eval: {files: [rows.csv]}}}
    model: {from: org/base}
    train: {num_steps: 10, batch_size: 8, lr: {peak: 1e-3}}
"""


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """Room for more jobs than the campaign may run."""
    return make_world(nodes=(Node("n1", 32.0, 0.0),))


@pytest.fixture
def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A campaign of 50 jobs, four at a time."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "grid.yaml"
    path.write_text(MATRIX)
    return path


def states(run: Run, *words: str) -> dict[str, int]:
    return json.loads(run("campaigns", "--json", *words).stdout)[0]["counts"]


def test_a_matrix_is_submitted_as_one_line_and_runs_four_at_a_time(matrix: Path, run: Run, world: World) -> None:
    world.cluster.automatic = False
    submitted = run("submit", matrix)
    assert submitted.stdout.startswith("grid: 50 jobs: 50 QUEUED, at most 4 at a time  (prunus show c-")
    world.step()
    assert states(run) == {"QUEUED": 46, "STARTING": 4}
    reason = run("why", "ctc-zh-5").stdout
    assert reason == "ctc-zh-5 is QUEUED: waits: campaign grid already runs 4 of its at most 4 jobs\n"


def test_the_option_overrides_the_recipe_also_for_a_matrix_without_jobs(matrix: Path, run: Run) -> None:
    run("submit", matrix, "--max-parallel", "7", "--name", "wide")
    assert json.loads(run("campaigns", "--json").stdout)[0]["max_parallel"] == 7
    alone = matrix.with_name("alone.yaml")
    text = MATRIX.partition("jobs:\n")[2].replace("  - ", "").replace("    ", "")
    alone.write_text("matrix: {seed: [1, 2, 3]}\n" + text)
    dry = run("submit", alone, "--max-parallel", "2", "--dry-run", "--json")
    document = json.loads(dry.stdout)
    assert (document["max_parallel"], len(document["jobs"])) == (2, 3)
    assert "at most 2 of 3 jobs at a time" in run("submit", alone, "--max-parallel", "2", "--dry-run").stderr
    assert run("submit", matrix, "--max-parallel", "0").exit_code == 2
    refused = run("submit", matrix, "--set", "max_parallel=0")
    assert refused.exit_code == 2
    assert "--set max_parallel=0: max_parallel: must be greater than or equal to 1, got 0" in refused.stderr


def test_campaigns_lists_counts_progress_and_age(matrix: Path, run: Run, world: World) -> None:
    assert "no campaigns" in run("campaigns").stderr
    world.submit(make_spec("alone"))
    run("submit", matrix, "--wait")
    world.clock.tick(60.0)
    run("submit", matrix, "--name", "second")
    first, second = json.loads(run("campaigns", "--json").stdout)[::-1]
    assert (first["name"], first["counts"], first["progress"]) == ("grid", {"SUCCEEDED": 50}, 1.0)
    assert (second["name"], second["counts"], second["progress"]) == ("second", {"QUEUED": 50}, 0.0)
    assert first["finished_at"] > first["created_at"] and second["finished_at"] is None
    rows = [line.split() for line in run("campaigns").stdout.splitlines()]
    assert [row[:5] for row in rows[1:]] == [
        ["second", "50", "0%", "50", "QUEUED"],
        ["grid", "50", "100%", "50", "SUCCEEDED"],
    ]
    assert len(json.loads(run("campaigns", "--json", "--limit", "1").stdout)) == 1


def test_show_of_a_campaign_is_a_table_with_the_metrics_its_jobs_have(matrix: Path, run: Run, world: World) -> None:
    world.cluster.automatic = False
    run("submit", matrix)
    world.step()
    done, failed, runs, _ = (world.attempt_id(f"ctc-es-{seed}") for seed in (1, 2, 3, 4))
    world.cluster.finish(done, metrics={"eval/cer": 0.1234567, "sparsity/prunable": 0.9, "eval/empty": 0.0})
    world.cluster.finish(failed, StopReason.USER_ERROR, "the data has no rows")
    world.cluster.beat(runs, world.clock.now, step=3)
    world.step()
    shown = run("show", "grid").stdout.splitlines()
    assert shown[1].split(maxsplit=1)[1] == ("50: 1 SUCCEEDED, 1 FAILED, 1 RUNNING, 3 STARTING, 44 QUEUED")
    assert "4 at a time" in shown[3]
    header = next(line for line in shown if line.startswith("JOB"))
    assert header.split() == ["JOB", "STATE", "STEP", "RAN", "cer", "prunable", "WHY"]
    assert shown[shown.index(header) - 1].split() == ["eval/", "sparsity/"]
    rows = shown[shown.index(header) + 1 :]
    assert rows[0].split()[:2] == ["ctc-es-1", "SUCCEEDED"] and rows[0].split()[-2:] == ["0.1235", "0.9"]
    assert "user_error: the data has no rows" in rows[1]
    assert len(rows) == 6 + 1
    assert rows[-1].split()[:3] == ["44", "jobs", "QUEUED"]
    assert "waits: campaign grid already runs 4 of its at most 4 jobs  (ctc-fr-2 … ctc-zh-5)" in rows[-1]
    queued = run("show", "grid", "--state", "queued").stdout
    assert "ctc-nl-3" in queued and "ctc-es-1 " not in queued and "44 jobs" not in queued
    document = json.loads(run("show", "grid", "--json", "--state", "failed", "--state", "running").stdout)
    assert [job["name"] for job in document["jobs"]] == ["ctc-es-2", "ctc-es-3"]
    assert document["num_jobs"] == 50
    assert "no job is in such a state" in run("show", "grid", "--state", "skipped").stdout
    refused = run("show", "ctc-es-1", "--state", "failed")
    assert refused.exit_code == 2 and "'ctc-es-1' is a job; leave it out" in refused.stderr


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


def test_fifty_jobs_are_followed_by_counts_and_by_what_runs(matrix: Path, run: Run) -> None:
    result = run("submit", matrix, "--follow")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()[1:]
    counts = [line for line in lines if line.startswith("50 jobs: ")]
    assert counts[0] == "50 jobs: 50 QUEUED" and counts[-1] == "50 jobs: 50 SUCCEEDED"
    assert sum("SUCCEEDED" in line for line in lines if line.startswith("ctc-")) == 50
    assert not any("QUEUED" in line for line in lines if line.startswith("ctc-"))


def test_on_a_terminal_the_live_view_fits_and_the_whole_table_stays(
    matrix: Path, run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=15, color_system=None)
    monkeypatch.setattr(terminal, "stdout", lambda: console)
    run("submit", matrix, "--follow")
    written = screen.getvalue()
    assert "50 jobs: 4 SUCCEEDED, 4 STARTING, 42 QUEUED" in written
    last = written[written.rindex("NAME") :]
    assert sum(line.startswith("ctc-") for line in last.splitlines()) == 50


def test_a_wait_for_fifty_jobs_asks_for_them_together(
    matrix: Path, run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("submit", matrix)
    asked = {"job": 0, "jobs": 0}
    one, many = Client.job, Client.jobs

    def ask_one(client: Client, ref: str) -> JobDetail:
        asked["job"] += 1
        return one(client, ref)

    def ask_many(client: Client, *given: Any, **named: Any) -> list[JobView]:
        asked["jobs"] += 1
        return many(client, *given, **named)

    monkeypatch.setattr(Client, "job", ask_one)
    monkeypatch.setattr(Client, "jobs", ask_many)
    assert run("wait", "grid").exit_code == 0
    looks = asked["jobs"]
    assert 10 <= looks <= 20  # 50 jobs, 4 at a time, a second each
    assert asked["job"] <= looks + 10


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
