"""``prunus compare`` over directories and over a server, and comparisons as jobs of the service.

The process that draws is the real one; the cluster is the fake one.
"""

import hashlib
import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file
from typer.testing import CliRunner

from prunus.configs import Campaign, ComparisonSpec, ConfigError, JobRecord
from prunus.configs.artifacts.comparison.result import Comparison, Entry
from prunus.service.api.views import Views
from prunus.service.cli import compare as compare_module
from prunus.service.cli import comparison_tables as comparison_view
from prunus.service.cli.main import app
from prunus.service.cli.shown.jobs import job_page
from prunus.service.cli.waiting import patience
from prunus.service.errors import Refused
from prunus.service.submission.dry_run import check_local_files
from prunus.service.submission.shipped_recipes import load_recipe
from prunus.service.wire import JobState
from tests.service.command_line import Run, clock_that, serving
from tests.service.world import World, make_spec

BITS = {"one": [1, 1, 0, 0, 1], "two": [1, 0, 1, 0, 1], "other": [1, 0, 1]}
"""one and two: 2 of 4 kept positions in common, 1 of 3 removed ones."""


def write_mask(folder: Path, bits: list[int]) -> None:
    """A mask file after the description of its format."""
    packed = np.packbits(np.array(bits, dtype=bool), bitorder="little")
    digest = hashlib.sha256(json.dumps(["w", [len(bits)]]).encode() + packed.tobytes()).hexdigest()
    facts = {"format": "prunus-mask", "version": "1", "shapes": json.dumps({"w": [len(bits)]}), "digest": digest}
    folder.mkdir(parents=True)
    save_file({"w": packed}, folder / "mask.safetensors", facts)


def job_json(name: str, wer: float, method: str = "parp") -> str:
    spec = {"name": name, "labels": {"language": "es"}, "task": {"name": "ctc"}, "method": {"name": method}}
    record = JobRecord(
        job_id=f"j-{name}", job_name=name, spec=spec, metrics={"eval/wer": wer, "sparsity/prunable": 0.0}
    )
    return record.model_dump_json()


def comparison(*jobs: str) -> ComparisonSpec:
    return ComparisonSpec.model_validate({"name": "compare", "compare": {"jobs": jobs}})


@pytest.fixture
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three as a fetch would leave them, and a server that nobody may ask."""
    for name, bits in BITS.items():
        write_mask(tmp_path / name / "masks/step-4", bits)
        (tmp_path / name / "job.json").write_text(job_json(name, 0.25))
    monkeypatch.setenv("PRUNUS_URL", "http://127.0.0.1:9")
    return tmp_path


@pytest.fixture
def ask(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a command against ``world``, whose jobs end when the test says so."""
    monkeypatch.setenv("PRUNUS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(patience, "time", clock_that(world.step))
    with serving(world) as url:
        monkeypatch.setenv("PRUNUS_URL", url)
        yield lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def end(world: World, name: str, bits: list[int] | None, method: str = "parp") -> None:
    """Let a job succeed, with a mask."""
    attempt = world.start(name)
    if bits:
        write_mask(world.directory(name).artifacts / "masks/step-4", bits)
    world.cluster.leave_artifact(attempt, {"job.json": job_json(name, 0.5, method), "model/big": "not fetched"})
    world.cluster.finish(attempt)
    world.step()


def test_directories_are_compared_without_a_server(directories: Path) -> None:
    places = [str(directories / name) for name in ("one", "two", "other")]
    result = CliRunner().invoke(app, ["compare", *places, "--by", "language", "--out", str(directories / "out")])
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[:4] == [
        ["JOB", "LANGUAGE", "SPARSITY", "eval/wer"],
        ["other", "es", "0.3333", "0.25"],
        ["one", "es", "0.4000", "0.25"],
        ["two", "es", "0.4000", "0.25"],
    ]
    # By chance: 3 * 3 / 5 = 1.8 kept by both, of 6 - 1.8; (5 - 6 + 1.8) of 5 - 1.8 removed.
    assert "IOU of the kept positions (below the diagonal; above it masks drawn at random: 0.43)" in result.stdout
    assert "IOU of the removed positions (below the diagonal; above it masks drawn at random: 0.25)" in result.stdout
    assert ["2", "one", "–", "1.0000", "0.4286"] in rows
    assert ["3", "two", "–", "0.5000", "1.0000"] in rows
    assert ["3", "two", "–", "0.3333", "1.0000"] in rows
    assert "left out: other and one, two are not compared: w is [3] in other and [5] in one" in result.stdout
    assert {path.name for path in (directories / "out").iterdir()} == {"comparison.json", "README.md", "figures"}


def test_a_campaign_means_its_jobs_that_succeeded(world: World, ask: Run) -> None:
    specs = [make_spec(name) for name in ("one", "two", "dense", "failed")]
    world.submitter.submit(Campaign(name="languages", jobs=(*specs, comparison("one", "two"))))
    for name, bits in (("one", BITS["one"]), ("two", BITS["two"]), ("dense", None)):
        end(world, name, bits, "dense" if bits is None else "parp")
    world.store.transition(world.job("failed"), JobState.CANCELLED, "for the test")
    result = ask("compare", "languages", "job:one", "--json")
    assert result.exit_code == 0, result.stderr
    assert "left out of languages: failed (CANCELLED)" in result.stderr
    found = Comparison.model_validate_json(result.stdout)
    assert [(entry.name, entry.method, entry.sparsity) for entry in found.entries] == [
        ("one", "parp", pytest.approx(0.4)),
        ("two", "parp", pytest.approx(0.4)),
        ("dense", "dense", 0.0),
    ]
    assert found.iou_kept == ((1.0, 0.5), (0.5, 1.0))
    assert found.iou_removed[0][1] == pytest.approx(1 / 3)


def test_only_masks_and_facts_are_brought(
    world: World, ask: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.submit(make_spec("one"), make_spec("two"))
    end(world, "one", BITS["one"])
    end(world, "two", None)
    brought: list[str] = []

    def keep(places: Any, *_: Any) -> Comparison:
        brought.extend(path.relative_to(place).as_posix() for place in places for path in place.rglob("*.*"))
        return Comparison(by=("method",), entries=())

    monkeypatch.setattr(compare_module, "compare", keep)
    assert ask("compare", "one", "two").exit_code == 0
    facts = ["job.json", "job.json", "manifest.json", "manifest.json"]
    assert sorted(brought) == [*facts, "masks/step-4/mask.safetensors"]
    refused = ask("fetch", "job:two", tmp_path / "masks", "--masks-only")
    assert refused.exit_code == 3 and "has no masks: its method removes nothing" in refused.stderr
    assert ask("fetch", "job:one", tmp_path / "one", "--masks-only").exit_code == 0
    assert (tmp_path / "one" / "job.json").is_file()


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["nothing"], 3, "no job and no campaign"),
        (["./nothing"], 3, "there is no directory ./nothing"),
        (["s3://x"], 2, "names no artifact"),
        (["one"], 3, "has no artifact"),
        (["all", "--campaign"], 3, "no job of the campaign all has succeeded"),
    ],
)
def test_a_source_that_cannot_be_compared(world: World, ask: Run, words: list[str], code: int, expected: str) -> None:
    world.submit(make_spec("one"), make_spec("two"), name="all")
    result = ask("compare", *words)
    assert (result.exit_code, expected in result.stderr) == (code, True), result.stderr


def test_what_cannot_be_compared_is_told_in_one_line(directories: Path) -> None:
    result = CliRunner().invoke(app, ["compare", str(directories / "one")])
    assert (result.exit_code, result.stderr) == (2, "error: 1 to compare; name at least two\n")
    out = ["--out", str(directories / "one/job.json")]
    result = CliRunner().invoke(app, ["compare", str(directories / "one"), str(directories / "two"), *out])
    assert result.exit_code == 2 and "is a file; name a directory" in result.stderr


def test_the_light_install_compares_and_is_told_before_anything_is_fetched_what_drawing_needs(
    directories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else object())
    places = [str(directories / name) for name in ("one", "two")]
    assert CliRunner().invoke(app, ["compare", *places]).exit_code == 0
    with pytest.raises(
        Refused, match=r"drawing needs matplotlib.*leave out --out.*'prunus\[train\]'.*compare: \{jobs:"
    ):
        compare_module.check_installed()
    result = CliRunner().invoke(app, ["compare", "job:a", "job:b", "--out", str(directories / "out")])
    assert result.exit_code == 2 and "prunus[train]" in result.stderr


def test_without_pictures_neither_torch_nor_matplotlib_nor_another_process_is_needed(directories: Path) -> None:
    code = (
        "import subprocess, sys; sys.modules.update(torch=None, matplotlib=None)\n"
        "from prunus.service.cli.main import app; subprocess.Popen = None; app(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "compare", str(directories / "one"), str(directories / "two"), "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert Comparison.model_validate_json(ended.stdout).iou_kept == ((1.0, 0.5), (0.5, 1.0))


def test_a_drawing_that_fails_is_told(directories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "_DRAWING", "prunus.no_such_module")
    places = [str(directories / name) for name in ("one", "two")]
    result = CliRunner().invoke(app, ["compare", *places, "--out", str(directories / "out")])
    assert result.exit_code == 2
    assert "the pictures could not be drawn" in result.stderr and "no_such_module" in result.stderr


# The job


def test_a_comparison_waits_for_its_jobs_and_gets_their_artifacts(world: World) -> None:
    spec = comparison("one", "two")
    world.submitter.submit(Campaign(name="languages", jobs=(make_spec("one"), make_spec("two"), spec)))
    assert world.state("compare") is JobState.BLOCKED
    end(world, "one", BITS["one"])
    assert world.state("compare") is JobState.BLOCKED
    end(world, "two", BITS["two"])
    world.restart()
    launch = world.cluster.launches[world.start("compare")]
    assert launch.spec == spec
    assert {name: source.location for name, source in launch.sources.items()} == {
        name: str(world.directory(name).artifacts) for name in ("one", "two")
    }
    world.cluster.finish(launch.attempt_id, metrics={"compare/jobs": 2})
    world.step()
    detail = Views(world.store, lambda _: None).job("compare")
    assert (detail.state, detail.task, detail.method, detail.spec) == (JobState.SUCCEEDED, "comparison", "", spec)
    page = shown(job_page(detail))
    assert "comparison, 1 x 1 CPU" in page and "job:one, job:two" in page


def test_a_comparison_is_no_source_and_an_unknown_one_is_refused(world: World) -> None:
    spec = comparison("job:one", "job:two")
    with pytest.raises(Refused, match="job:two, which compare reads from, is neither in this campaign nor"):
        world.submitter.submit(Campaign(jobs=(make_spec("one"), spec)))
    world.submitter.submit(Campaign(jobs=(make_spec("one"), make_spec("two"), spec)))
    with pytest.raises(Refused, match="reads from job:compare, which compares and leaves neither model nor mask"):
        world.submit(make_spec("late", "job:compare"))


def test_a_recipe_with_a_comparison_is_planned_and_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "recipe.yaml"
    task = "{name: masked_lm, data: {train: {files: [/dev/null]}}}"
    recipe.write_text(
        f"campaign: c\njobs:\n  - name: a\n    matrix: {{seed: [1, 2]}}\n    task: {task}\n    model: {{from: org/x}}\n"
        "    train: {num_steps: 10, lr: {peak: 1.0e-3}}\n  - name: compare\n    compare: {jobs: [a, ./kept]}\n"
    )
    monkeypatch.chdir(tmp_path)
    tried = CliRunner().invoke(app, ["submit", str(recipe), "--dry-run"])
    assert tried.exit_code == 0, tried.stderr
    last = tried.stdout.splitlines()[-1].split()
    assert (last[:4], last[-2:]) == (["compare", "comparison", "3", "jobs"], ["a-1,", "a-2"])
    assert f"{tmp_path}/kept (a directory)" in tried.stderr
    planned = CliRunner().invoke(app, ["plan", str(recipe), "--png", str(tmp_path / "plan.png")])
    assert planned.exit_code == 0, planned.stderr
    assert f"compare: compares a-1, a-2, {tmp_path}/kept" in planned.stdout
    with pytest.raises(
        ConfigError, match=r"compare: compare\.jobs: there is no directory '/.*/kept'; name a directory that a job"
    ):
        check_local_files(load_recipe(str(recipe)), "recipe.yaml")


def test_a_recipe_of_comparisons_alone_has_nothing_to_draw(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: c\ncompare: {jobs: ['job:a', 'job:b']}\n")
    assert CliRunner().invoke(app, ["plan", str(recipe)]).exit_code == 0
    refused = CliRunner().invoke(app, ["plan", str(recipe), "--png", str(tmp_path / "p.png")])
    assert refused.exit_code == 2 and "nothing to draw" in refused.stderr


# What is shown


def shown(renderable: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=200, color_system=None).print(renderable)
    return out.getvalue()


def test_many_masks_are_left_to_pictures_and_machines() -> None:
    names = tuple(f"m{i}" for i in range(13))
    matrix = tuple((0.5,) * 13 for _ in names)
    entries = tuple(Entry(name=name, source="s", group=("parp",), sparsity=0.5) for name in names)
    page = shown(
        comparison_view.page(
            Comparison(by=("method",), entries=entries, masked=names, iou_kept=matrix, random_iou_kept=matrix)
        )
    )
    assert "13 masks make too wide a matrix: --out DIR draws it, --json prints it" in page
    assert "IOU" not in page and "m12" in page


def test_the_head_says_the_range_of_chance() -> None:
    names = ("[a]", "b", "c")
    random = ((1.0, 0.1, 0.2), (0.1, 1.0, 0.3), (0.2, 0.3, 1.0))
    entries = tuple(Entry(name=name, source="s", group=("parp",)) for name in names)
    matrices = dict.fromkeys(("iou_kept", "random_iou_kept", "iou_removed", "random_iou_removed"), random)
    page = shown(
        comparison_view.page(Comparison(by=("method",), entries=entries, masked=names, notes=("why",), **matrices))
    )
    assert "masks drawn at random: 0.10 to 0.30)" in page
    assert "1 [a]" in page and "left out: why" in page


def test_two_keys_are_shown_as_a_table() -> None:
    places = [("es", "es"), ("es", "tr"), ("tr", "es"), ("tr", "tr")]
    entries = tuple(
        Entry(name=f"{a}-{b}", source="x", group=(a, b), sparsity=0.5, metrics={"eval/per": 0.1 + i / 10})
        for i, (a, b) in enumerate(places)
    )
    page = shown(comparison_view.page(Comparison(by=("source", "target"), entries=entries)))
    assert "eval/per: sparsity 0.5" in page
    lines = [line.split() for line in page.splitlines()]
    assert ["SOURCE", "/", "TARGET", "es", "tr"] in lines
    assert ["es", "0.1000", "0.2000"] in lines and ["tr", "0.3000", "0.4000"] in lines


def test_a_label_in_brackets_is_no_markup() -> None:
    entries = tuple(
        Entry(name=f"{a}{b}", source="x", group=(a, b), sparsity=0.5, metrics={"eval/per": 0.5})
        for a in ("[es]", "[/x]")
        for b in ("[fr]", "[/b]")
    )
    page = shown(comparison_view.page(Comparison(by=("[source]", "target"), entries=entries)))
    assert all(label in page for label in ("[fr]", "[/b]", "[es]", "[/x]", "[SOURCE]"))


def test_a_wide_matrix_says_where_it_is() -> None:
    entries = tuple(
        Entry(name=f"{a}-{b}", source="x", group=(str(a), str(b)), sparsity=0.5, metrics={"eval/per": 0.5})
        for a in range(13)
        for b in range(13)
    )
    page = shown(comparison_view.page(Comparison(by=("source", "target"), entries=entries)))
    assert "eval/per: sparsity 0.5: source x target is too wide: --out DIR draws it" in page
