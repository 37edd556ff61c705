"""A job that compares, as a rank runs it: what it reads, leaves, tells MLflow, and when it fails."""

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from prunus.configs import ComparisonSpec, Launch, ResolvedSource
from prunus.configs.artifacts.comparison.result import Comparison
from prunus.configs.artifacts.layout import JobDirectory
from prunus.configs.artifacts.manifest import read_manifest, sha256_file, verify
from prunus.jobs import run
from prunus.jobs.errors import JobError, UserError
from prunus.jobs.ranks import Ranks
from prunus.jobs.results.finish import Result
from prunus.jobs.tracking import mlflow_carrier
from tests.configs.artifacts.comparison.compared_artifacts import write_artifact

Compare = Callable[..., Result | None]
PICTURES = ("iou_kept", "iou_removed", "eval_wer_against_sparsity", "sparsity_per_weight")


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """Two jobs and a fetched directory, to be compared."""
    places = {name: write_artifact(tmp_path / f"jobs/{name}/artifacts", name, name, wer=0.5) for name in ("x", "y")}
    fetched = write_artifact(tmp_path / "fetched", "far", "x", with_manifest=False, campaign="c", wer=0.25)
    sources = {
        name: ResolvedSource(
            reference=f"job:{name}",
            kind="artifact",
            location=str(place),
            manifest_sha256=sha256_file(place / "manifest.json"),
        )
        for name, place in places.items()
    }
    sources[str(fetched)] = ResolvedSource(reference=str(fetched), kind="directory", location=str(fetched))
    spec = ComparisonSpec.model_validate({"name": "compare", "compare": {"jobs": ["x", "y", str(fetched)]}})
    return Launch(
        prunus_version="0.1.0", job_id="j-c", job_name="compare", attempt=1, attempt_id="j-c-a1", token="1",
        job_dir=str(tmp_path / "job"), cache_dir=str(tmp_path / "cache"), spec=spec, sources=sources,
    )  # fmt: skip


@pytest.fixture
def run_rank(monkeypatch: pytest.MonkeyPatch, alone: Ranks) -> Compare:
    """The rank's entry without a process group and without the root logger."""
    monkeypatch.setattr(Ranks, "join", classmethod(lambda cls: alone))
    monkeypatch.setattr(run, "_log_to", lambda *_: None)
    return run.run_rank


def test_it_leaves_an_artifact_that_verifies(launch: Launch, run_rank: Compare, tmp_path: Path) -> None:
    directory = JobDirectory(launch.job_dir)
    (directory.artifacts / "figures").mkdir(parents=True)
    (directory.artifacts / "figures/of_an_attempt_that_died.png").write_text("")
    result = run_rank(launch)
    manifest = verify(directory.artifacts)
    tables = {"comparison.json", "README.md", "job.json"}
    assert set(manifest.files) == tables | {f"figures/{name}.png" for name in PICTURES}
    digest = sha256_file(tmp_path / "jobs/x/artifacts/manifest.json")
    assert manifest.parents["x"] == f"job:x sha256:{digest}"
    found = Comparison.model_validate_json((directory.artifacts / "comparison.json").read_text())
    assert [(entry.name, entry.source) for entry in found.entries] == [
        ("x", "job:x"),
        ("y", "job:y"),
        ("far", str(tmp_path / "fetched")),
    ]
    assert found.iou_kept == ((1.0, 0.5, 1.0), (0.5, 1.0, 0.5), (1.0, 0.5, 1.0))
    assert result is not None
    assert result.manifest_sha256 == sha256_file(directory.artifacts / "manifest.json")
    assert result.metrics["compare/iou_kept"] == pytest.approx((0.5 + 1.0 + 0.5) / 3)
    assert (result.metrics["compare/jobs"], result.published, result.message) == (3, False, "")
    assert result.bytes_on_disk > sum(entry.size for entry in manifest.files.values())


def test_its_run_has_the_pictures(
    launch: Launch, run_rank: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mlflow_carrier, "_RACE_S", 0.0)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    campaign = {"campaign_id": "c-1", "campaign_name": "languages"}
    result = run_rank(launch.model_copy(update={"mlflow_uri": uri, **campaign}))
    assert result is not None and result.published
    client = mlflow.MlflowClient(tracking_uri=uri)
    done = client.get_run(result.run_id)
    assert (done.info.status, done.info.run_name) == ("FINISHED", "compare")
    assert client.get_run(done.data.tags["mlflow.parentRunId"]).info.run_name == "languages"
    assert done.data.params["lineage.x"].startswith("job:x sha256:")
    assert done.data.params["compare.by"] == '["method"]'
    assert done.data.metrics["compare/masks"] == 3
    figures = {Path(file.path).stem for file in client.list_artifacts(result.run_id, "figures")}
    assert figures == set(PICTURES)


def test_what_is_left_out_is_told_though_the_job_succeeds(launch: Launch, run_rank: Compare, tmp_path: Path) -> None:
    place = write_artifact(tmp_path / "other", "z", "z")
    other = ResolvedSource(reference="job:z", kind="artifact", location=str(place))
    result = run_rank(launch.model_copy(update={"sources": {**launch.sources, "z": other}}))
    assert result is not None and "z are not compared: z lacks 1 of 2 weights" in result.message


def test_a_source_that_changed_is_refused_and_the_rank_says_why(
    launch: Launch, run_rank: Compare, tmp_path: Path
) -> None:
    manifest = tmp_path / "jobs/x/artifacts/manifest.json"
    manifest.write_text(read_manifest(manifest.parent).model_dump_json(indent=3))
    with pytest.raises(JobError, match=r"job:x: .*manifest.json changed since the job that made it ended"):
        run_rank(launch)
    directory = JobDirectory(launch.job_dir)
    assert "user_error" in directory.rank_error(1, 0).read_text()
    assert not directory.artifacts.exists()


def test_a_missing_directory_is_named(launch: Launch, run_rank: Compare) -> None:
    away = ResolvedSource(reference="/nowhere/x", kind="directory", location="/nowhere/x")
    with pytest.raises(UserError, match="/nowhere/x does not exist on this node"):
        run_rank(launch.model_copy(update={"sources": {**launch.sources, "/nowhere/x": away}}))


def test_masks_of_other_weights_alone_fail_the_job(launch: Launch, run_rank: Compare, tmp_path: Path) -> None:
    place = write_artifact(tmp_path / "other", "z", "z")
    other = ResolvedSource(reference="job:z", kind="artifact", location=str(place))
    with pytest.raises(UserError, match="no two masks are of the same weights"):
        run_rank(launch.model_copy(update={"sources": {"x": launch.sources["x"], "z": other}}))


def test_an_attempt_that_was_superseded_writes_nothing(launch: Launch, run_rank: Compare) -> None:
    directory = JobDirectory(launch.job_dir)
    directory.root.mkdir()
    directory.fence.write_text("2")
    with pytest.raises(JobError, match="superseded"):
        run_rank(launch)
    assert not directory.artifacts.exists()
