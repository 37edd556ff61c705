"""A campaign run by forks: order, what is not run again, and what is said of jobs that failed."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import prunus.jobs.run
from benchmarks import campaign_by_hand
from prunus.configs import ConfigError, JobRecord, JobSpec, Launch
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import JOB_RECORD, JobDirectory
from prunus.configs.artifacts.manifest import MANIFEST, Manifest, build_entries, sha256_file

TRAIN = {"num_steps": 1, "batch_size": 1, "lr": {"peak": 1e-3}}


def spec(base: str, name: str, **changed: Any) -> JobSpec:
    """A job that is never trained here."""
    data = {"train": {"files": ["train.tsv"]}, "eval": {"files": ["test.tsv"]}}
    fixed = {"name": name, "task": {"name": "ctc", "data": data}, "model": {"from": base}, "train": TRAIN}
    return JobSpec.model_validate({**fixed, **changed})


def left_by(launch: Launch) -> None:
    """What the real one does, without training: an artifact whose record counts the runs of this directory."""
    directory = JobDirectory(launch.job_dir)
    name = launch.spec.name
    with (directory.root.parent / "order").open("a") as order:
        order.write(f"{name}\n")
    if name == "raises":
        raise RuntimeError("no good")
    if name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    for source in launch.sources.values():
        if source.kind == "artifact":
            assert source.manifest_sha256 == sha256_file(Path(source.location) / MANIFEST)
    directory.artifacts.mkdir(parents=True, exist_ok=True)
    record = JobRecord(
        job_id=launch.job_id,
        job_name=name,
        campaign_name=None,
        spec=launch.spec.model_dump(mode="json", by_alias=True),
        metrics={"eval/cer": 0.25, "eval/cer/es": 0.5, "loss/task": 9.0},
    )
    write_atomic(directory.artifacts / JOB_RECORD, record.model_dump_json())
    files = build_entries(directory.artifacts)
    manifest = Manifest(job_id=launch.job_id, job_name=name, attempt_id=launch.attempt_id, files=files)
    write_atomic(directory.artifacts / MANIFEST, manifest.model_dump_json())


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A directory to start from; every child from here on runs ``left_by``."""
    monkeypatch.setattr(prunus.jobs.run, "run_rank", left_by)
    (tmp_path / "base").mkdir()
    return str(tmp_path / "base")


def order(out: Path) -> list[str]:
    return (out / "order").read_text().split()


def test_a_job_runs_after_those_it_needs_and_is_not_run_again(
    base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    chain = [spec("job:b", "c"), spec("job:a", "b"), spec(base, "a"), spec(base, "late", after=["c"])]
    with subprocess.Popen(["true"]):  # another child of this process
        campaign_by_hand.run_all(chain, out, parallel=2)
    assert order(out) == ["a", "b", "c", "late"]
    assert campaign_by_hand.report(chain, out) == 0
    said = capsys.readouterr().out
    assert "a: eval/cer 0.2500\n" in said  # means alone: neither languages nor losses
    assert "4 of 4 jobs have left their artifact" in said
    campaign_by_hand.run_all([*chain, spec("job:late", "new")], out, parallel=2)
    assert order(out) == ["a", "b", "c", "late", "new"]


@pytest.mark.parametrize("name", ["raises", "dies"])
def test_a_job_that_fails_stops_what_needs_it_alone(
    base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sys, "stderr", os.fdopen(2, "w", closefd=False))  # pytest's own goes past the job's log
    out = tmp_path / "out"
    out.mkdir()
    specs = [spec(base, name), spec(f"job:{name}", "after-it"), spec(base, "other")]
    campaign_by_hand.run_all(specs, out, parallel=1)
    assert order(out) == [name, "other"]
    assert campaign_by_hand.report(specs, out) == 1
    said = capsys.readouterr().out
    assert f"{name}: failed: {out / name}/*.log" in said
    assert f"after-it: needs {name}" in said
    assert "1 of 3 jobs have left their artifact" in said
    assert ("RuntimeError: no good" in (out / name / "output.log").read_text()) == (name == "raises")


def test_the_artifact_of_another_spec_is_refused_and_kept(base: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    campaign_by_hand.run_all([spec(base, "a")], out, parallel=1)
    with pytest.raises(ConfigError, match="was made by another spec"):
        campaign_by_hand.run_all([spec(base, "a", train={**TRAIN, "num_steps": 2})], out, parallel=1)
    assert order(out) == ["a"]
    assert (out / "a" / "artifacts" / MANIFEST).is_file()
