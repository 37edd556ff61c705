"""``prunus list``, ``campaigns`` and ``show``."""

import json
from pathlib import Path

from prunus.configs import StopReason
from prunus.service.errors import NotFound
from tests.service.command_line import Run
from tests.service.world import World, make_spec


def test_submit_queues_and_list_shows_names_and_states(recipe: Path, run: Run) -> None:
    submitted = run("submit", recipe)
    assert submitted.exit_code == 0
    rows = run("list").stdout.splitlines()[1:]
    assert {tuple(row.split()[:3]) for row in rows} == {("teacher", "demo", "QUEUED"), ("student", "demo", "BLOCKED")}
    assert [job["name"] for job in json.loads(run("list", "--state", "blocked", "--json").stdout)] == ["student"]


def test_show_and_logs_and_cancel(recipe: Path, run: Run, world: World) -> None:
    world.cluster.automatic = False
    run("submit", recipe)
    attempt = world.start("teacher")
    world.cluster.logs[attempt] = "[red]step 1[/red]\nstep 2\n"
    assert run("logs", "teacher").stderr.startswith("no log yet: teacher is RUNNING")
    assert run("logs", "demo/teacher", "--driver").stdout == "[red]step 1[/red]\nstep 2\n"
    world.directory("teacher").rank_log(1, 0).write_text("rank 0: loss 2.5\n")
    assert run("logs", "teacher").stdout == "rank 0: loss 2.5\n"
    assert run("logs", "teacher", "--rank", "7").exit_code == NotFound.exit_code
    shown = run("show", "teacher").stdout
    assert "RUNNING" in shown and "classification x dense, 1 x 1 CPU" in shown
    assert json.loads(run("show", "teacher", "--json").stdout)["spec"]["model"]["from"] == "org/base"
    assert run("cancel", "demo").stdout.splitlines() == [
        "demo: 2 of 2 jobs cancelled; 1 of these ran and is asked to stop"
    ]


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
