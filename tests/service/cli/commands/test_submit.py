"""``prunus submit`` against the real API around a fake cluster."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prunus.service.cli.main import app
from prunus.service.submission import shipped_recipes
from tests.service.command_line import RECIPE, Run, serving, states
from tests.service.world import World


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
    monkeypatch.setattr(shipped_recipes, "SHIPPED", tmp_path)
    result = CliRunner().invoke(app, ["submit", "prune_ofa/dmo", "--dry-run"])
    assert result.exit_code == 2 and "did you mean 'prune_ofa/demo'?" in result.stderr
    assert CliRunner().invoke(app, ["submit", "prune_ofa/demo", "--dry-run"]).exit_code == 0
    listed = CliRunner().invoke(app, ["recipes"]).stdout
    assert [part.strip() for part in listed.splitlines()[1].split("  ") if part] == [
        "prune_ofa/demo",
        "Prune once, use twice.",
    ]
    assert CliRunner().invoke(app, ["recipes", "prune_ofa/demo"]).stdout.endswith(RECIPE)


def test_submit_and_wait_gives_pure_json_and_0_when_all_succeeded(recipe: Path, run: Run) -> None:
    result = run("submit", recipe, "--wait", "--json")
    assert result.exit_code == 0
    assert {job["name"]: job["state"] for job in json.loads(result.stdout)["jobs"]} == {
        "teacher": "SUCCEEDED",
        "student": "SUCCEEDED",
    }


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
    text = matrix.read_text().partition("jobs:\n")[2].replace("  - ", "").replace("    ", "")
    alone.write_text("matrix: {seed: [1, 2, 3]}\n" + text)
    dry = run("submit", alone, "--max-parallel", "2", "--dry-run", "--json")
    document = json.loads(dry.stdout)
    assert (document["max_parallel"], len(document["jobs"])) == (2, 3)
    assert "at most 2 of 3 jobs at a time" in run("submit", alone, "--max-parallel", "2", "--dry-run").stderr
    assert run("submit", matrix, "--max-parallel", "0").exit_code == 2
    refused = run("submit", matrix, "--set", "max_parallel=0")
    assert refused.exit_code == 2
    assert "--set max_parallel=0: max_parallel: must be greater than or equal to 1, got 0" in refused.stderr
