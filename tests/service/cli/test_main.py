"""The command line against the real API around a fake cluster. Pauses of the poll loop move the scheduler on."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from prunus.configs import ConfigError, StopReason
from prunus.configs.errors import Damaged
from prunus.service.cli import follow
from prunus.service.cli.main import app
from prunus.service.client import Client
from prunus.service.errors import ARTIFACT_EXIT_CODES, NotFound, Unreachable
from prunus.service.local import up as embedded
from prunus.service.local.parts import UpOptions
from prunus.service.submission import shipped_recipes as recipe_files
from prunus.service.wire import JobState
from tests.service.command_line import Run, clock_that, serving
from tests.service.world import World

RECIPE = """\
# Two jobs, one after the other.
campaign: demo
defaults:
  task: {name: classification, data: {train: {files: [rows.csv]}, eval: {files: [rows.csv]}}}
  train: {num_steps: 10, batch_size: 8, lr: {peak: 1e-3}}
jobs:
  - name: teacher
    model: {from: org/base}
  - name: student
    model: {from: "job:teacher"}
    method: {name: gradual_magnitude, final_sparsity: 0.9}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    path = work / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_help_names_every_command_and_the_exit_codes() -> None:
    help_text = CliRunner().invoke(app, ["--help"]).stdout
    commands = (
        "up down submit plan list campaigns show why logs cancel wait fetch compare convert inspect recipes "
        "make-speech-corpus"
    )
    for command in commands.split(" "):
        assert f"  {command} " in help_text
    assert "Exit codes: 0 ok; 1 a job did not succeed" in help_text
    assert "124 gave up waiting" in " ".join(help_text.split())


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom prunus.service.cli.main import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print([m for m in ('numpy', 'ray', 'mlflow', 'fastapi', 'sqlalchemy', 'torch') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


def test_dry_run_prints_the_resolved_jobs_and_needs_no_server(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNUS_URL", "http://127.0.0.1:9")
    result = CliRunner().invoke(app, ["submit", str(recipe), "--dry-run"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[1].split()[:4] == ["teacher", "classification", "dense", "org/base"]
    assert "gradual_magnitude 0.9" in lines[2] and lines[2].split()[-1] == "teacher"


def test_dry_run_names_what_it_could_not_check(recipe: Path) -> None:
    recipe.write_text(
        RECIPE + "    distillation: {teacher: 'job:older'}\n  - {name: third, model: {from: ./dir}}\n"
        "  - {name: fourth, model: {from: 'models:/m@current'}}\n"
    )
    result = CliRunner().invoke(app, ["submit", str(recipe), "--dry-run"])
    assert result.stderr.splitlines() == [
        f"not on this machine: teacher, student, third and 1 more: task.data.train.files[0]: no file matches "
        f"'{recipe.parent}/rows.csv'",
        f"not on this machine: teacher, student, third and 1 more: task.data.eval.files[0]: no file matches "
        f"'{recipe.parent}/rows.csv'",
        f"not on this machine: third: model: there is no directory '{recipe.parent}/dir'",
        f"not checked: org/base (on the hub), job:older (an earlier job), {recipe.parent}/dir (a directory), "
        "models:/m@current (in the model registry), the data, whether the cluster has room",
    ]


@pytest.mark.parametrize("option", ["--wait", "--follow"])
def test_dry_run_has_nothing_to_wait_for(recipe: Path, option: str) -> None:
    result = CliRunner().invoke(app, ["submit", str(recipe), "--dry-run", option])
    assert result.exit_code == 2 and "--dry-run queues nothing" in result.stderr


def test_dry_run_as_json_with_overrides_and_a_name(recipe: Path) -> None:
    words = ["submit", str(recipe), "--dry-run", "--json", "--set", "jobs.student.method.final_sparsity=0.5"]
    document = json.loads(CliRunner().invoke(app, [*words, "--name", "other"]).stdout)
    assert document["name"] == "other"
    assert [job["name"] for job in document["jobs"]] == ["teacher", "student"]
    assert document["jobs"][1]["method"]["final_sparsity"] == 0.5
    assert document["jobs"][0]["task"]["data"]["train"]["files"] == [str(recipe.parent / "rows.csv")]


def test_a_mistake_in_a_recipe_is_one_message_with_file_and_line(recipe: Path, run: Run, world: World) -> None:
    recipe.write_text(RECIPE.replace("final_sparsity: 0.9", "final_sparsity: 1.2"))
    result = run("submit", recipe)
    assert result.exit_code == 2
    assert f"error: {recipe}:11: jobs[1].method.final_sparsity" in result.stderr
    assert "Traceback" not in result.output and result.stdout == ""
    assert world.store.jobs(limit=10) == []


def test_a_file_that_does_not_exist_is_told_with_the_nearest_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prune_ofa").mkdir()
    (tmp_path / "prune_ofa" / "demo.yaml").write_text("# Prune once, use twice.\n" + RECIPE)
    monkeypatch.setattr(recipe_files, "SHIPPED", tmp_path)
    result = CliRunner().invoke(app, ["submit", "prune_ofa/dmo", "--dry-run"])
    assert result.exit_code == 2 and "did you mean 'prune_ofa/demo'?" in result.stderr
    assert CliRunner().invoke(app, ["submit", "prune_ofa/demo", "--dry-run"]).exit_code == 0
    listed = CliRunner().invoke(app, ["recipes"]).stdout
    assert [part.strip() for part in listed.splitlines()[1].split("  ") if part] == [
        "prune_ofa/demo",
        "Prune once, use twice.",
    ]
    assert CliRunner().invoke(app, ["recipes", "prune_ofa/demo"]).stdout.endswith(RECIPE)


def test_submit_queues_and_list_shows_names_and_states(recipe: Path, run: Run) -> None:
    submitted = run("submit", recipe)
    assert submitted.exit_code == 0
    rows = run("list").stdout.splitlines()[1:]
    assert {tuple(row.split()[:3]) for row in rows} == {("teacher", "demo", "QUEUED"), ("student", "demo", "BLOCKED")}
    assert [job["name"] for job in json.loads(run("list", "--state", "blocked", "--json").stdout)] == ["student"]


def test_submit_and_wait_gives_pure_json_and_0_when_all_succeeded(recipe: Path, run: Run) -> None:
    result = run("submit", recipe, "--wait", "--json")
    assert result.exit_code == 0
    assert {job["name"]: job["state"] for job in json.loads(result.stdout)["jobs"]} == {
        "teacher": "SUCCEEDED",
        "student": "SUCCEEDED",
    }


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


def test_follow_without_a_terminal_prints_a_line_per_change(recipe: Path, run: Run) -> None:
    result = run("submit", recipe, "--follow")
    assert result.exit_code == 0
    states = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("teacher: ")]
    assert states[0] == "QUEUED" and states[-1] == "SUCCEEDED"
    assert states.count("SUCCEEDED") == 1


def test_ctrl_c_while_waiting_leaves_the_job_and_says_how_to_cancel(
    recipe: Path, run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    run("submit", recipe)
    monkeypatch.setattr(follow, "time", clock_that(interrupt))
    result = run("wait", "teacher")
    assert result.exit_code == 130
    assert f"prunus cancel {world.job('teacher').id}" in result.stderr
    assert world.state("teacher") is JobState.QUEUED


def test_a_server_that_is_silent_for_a_while_does_not_end_the_wait(
    recipe: Path, run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("submit", recipe)
    whole, silences = Client.job, [3]

    def job(client: Client, ref: str) -> Any:
        if silences[0] and world.state("teacher") is not JobState.QUEUED:
            silences[0] -= 1
            raise Unreachable("no answer from the prunus server")
        return whole(client, ref)

    monkeypatch.setattr(Client, "job", job)
    result = run("wait", "demo")
    assert result.exit_code == 0 and silences == [0]
    assert result.stderr.count("looking again") == 1 and "the server answers again" in result.stderr


def test_a_followed_log_goes_on_until_the_attempt_has_ended(
    recipe: Path, run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.cluster.automatic = False
    run("submit", recipe)
    attempt = world.start("teacher")
    log = world.directory("teacher").rank_log(1, 0)
    log.write_text("step 1\n")
    later = iter(["step 2\n", "step 3\n"])

    def train() -> None:
        line = next(later, None)
        if line is None:
            world.cluster.finish(attempt)
            world.step()
        else:
            log.write_text(log.read_text() + line)

    monkeypatch.setattr(follow, "time", clock_that(train))
    assert run("logs", "-f", "teacher").stdout == "step 1\nstep 2\nstep 3\n"


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


def test_a_campaign_in_place_of_a_job_is_told(recipe: Path, run: Run) -> None:
    run("submit", recipe)
    for command in ("why", "logs"):
        result = run(command, "demo")
        assert result.exit_code == NotFound.exit_code
        assert "that is a campaign: name one of its jobs, such as demo/teacher" in result.stderr
    assert run("show", "demo/teacher").exit_code == 0


@pytest.mark.parametrize("command", ["show", "why", "logs", "cancel", "wait"])
def test_an_empty_reference_is_refused(run: Run, command: str) -> None:
    result = run(command, "")
    assert result.exit_code == 2 and "'' names no job" in result.stderr


@pytest.mark.parametrize("command", ["show", "why", "logs", "cancel", "wait"])
def test_an_unknown_job_is_not_found(run: Run, command: str) -> None:
    result = run(command, "absent")
    assert result.exit_code == NotFound.exit_code
    assert "absent" in result.stderr and result.stdout == ""


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["list", "--url", "http://127.0.0.1:9"])
    assert result.exit_code == Unreachable.exit_code
    assert "error: no answer from the prunus server at http://127.0.0.1:9" in result.stderr


def test_missing_local_files_are_refused_before_anything_is_queued(recipe: Path, run: Run, world: World) -> None:
    recipe.write_text(RECIPE.replace("from: org/base", "from: ./absent"))
    with serving(world, is_embedded=True) as url:
        refused = run("submit", recipe, "--url", url)
        assert world.store.jobs(limit=10) == []
        recipe.write_text(RECIPE)
        (recipe.parent / "rows.csv").write_text("text,label\n")
        assert run("submit", recipe, "--url", url).exit_code == 0
    assert refused.exit_code == 2
    assert f"no file matches '{recipe.parent / 'rows.csv'}'; mend the path" in refused.stderr
    assert f"teacher: model: there is no directory '{recipe.parent / 'absent'}'" in refused.stderr


def test_masks_and_models_are_looked_for_where_jobs_leave_them(recipe: Path) -> None:
    """``fetch --masks-only`` leaves no config.json, and a job by hand has it in ``model/``."""
    base, masks = recipe.parent / "base", recipe.parent / "masks-only"
    recipe.write_text(RECIPE.replace("org/base", "./base").replace("0.9}", "0.9, mask: ./masks-only}"))
    (recipe.parent / "rows.csv").write_text("text,label\n")
    base.mkdir()
    masks.mkdir()
    campaign = recipe_files.load_recipe(str(recipe))
    with pytest.raises(ConfigError) as refused:
        recipe_files.check_local_files(campaign, "r.yaml")
    assert f"teacher: model: has no config.json: '{base}'; name a directory that transformers' save" in str(
        refused.value
    )
    assert f"student: mask: has no masks/step-N/mask.safetensors: '{masks}'; name a directory that a job" in str(
        refused.value
    )
    for file in (base / "model/config.json", masks / "masks/step-9/mask.safetensors"):
        file.parent.mkdir(parents=True)
        file.touch()
    recipe_files.check_local_files(campaign, "r.yaml")


def test_a_folder_of_clips_that_is_not_there_is_refused(recipe: Path) -> None:
    (recipe.parent / "train.tsv").touch()
    recipe.write_text(
        "name: a\nmodel: {from: org/base}\ntrain: {num_steps: 10, lr: {peak: 1e-3}}\n"
        "task: {name: ctc, data: {train: {files: [train.tsv], clips: ./sounds}}}\n"
    )
    campaign = recipe_files.load_recipe(str(recipe))
    with pytest.raises(ConfigError, match=r"a: task\.data\.train\[0\]\.clips: there is no directory '/.*/sounds'; say"):
        recipe_files.check_local_files(campaign, "r.yaml")


def test_without_a_server_the_embedded_default_is_started_and_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[Path, UpOptions | None]] = []

    def up(home: Path, options: UpOptions | None, say: object) -> SimpleNamespace:
        started.append((home, options))
        return SimpleNamespace(server_url=url)

    url = os.environ["PRUNUS_URL"]
    monkeypatch.delenv("PRUNUS_URL")
    monkeypatch.setattr(embedded, "up", up)
    result = run("list", "--json")
    assert started == [(tmp_path / "home", None)]
    assert "no server is configured" in result.stderr and json.loads(result.stdout) == []
    for name, value in (("RAY_ADDRESS", "http://ray:8265"), ("MLFLOW_URI", "http://m:1"), ("STORE", "sqlite:////q.db")):
        monkeypatch.setenv(f"PRUNUS_{name}", value)
    run("list")
    expected = UpOptions(ray_address="http://ray:8265", mlflow_uri="http://m:1", store="sqlite:////q.db")
    assert started[-1] == (tmp_path / "home", expected)


def test_fetch_brings_what_a_job_left_and_inspect_refuses_it_when_damaged(
    recipe: Path, run: Run, tmp_path: Path
) -> None:
    run("submit", recipe, "--wait")
    fetched = json.loads(run("fetch", "job:teacher", tmp_path / "out", "--json").stdout)
    assert fetched["files"] == ["config.json"]
    assert (tmp_path / "out" / "config.json").read_text() == "{}"
    (tmp_path / "out" / "config.json").write_text("{ }")
    result = run("inspect", tmp_path / "out")
    assert result.exit_code == ARTIFACT_EXIT_CODES[Damaged] and "differs from its manifest" in result.stderr
    assert run("fetch", "job:absent", tmp_path / "other").exit_code == NotFound.exit_code


@pytest.mark.parametrize("source", ["./x", "/a/x", "~/x", "s3://bucket/x", "models:x", "", "demo:teacher"])
def test_fetch_names_the_forms_of_a_source(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRUNUS_URL", raising=False)
    monkeypatch.setattr(embedded, "up", None)  # Nothing is started to say so.
    result = CliRunner().invoke(app, ["fetch", source, str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "write job:NAME, job:CAMPAIGN/NAME, job:ID or models:/NAME@ALIAS" in result.stderr


def test_wrong_usage_is_2(run: Run) -> None:
    assert run("submit").exit_code == 2
    assert run("frobnicate").exit_code == 2
    assert run("list", "--state", "asleep").exit_code == 2
