"""The demo's table: sizes out of the manifests, zeros out of what was fetched."""

from pathlib import Path

from rich.console import Console

from prunus.service.cli.demo.results import results_table, weight_bytes
from prunus.service.wire import ArtifactView, FileView, JobState, JobView


def artifact(**sizes: int) -> ArtifactView:
    files = tuple(FileView(path=path, size=size, sha256="0" * 64) for path, size in sizes.items())
    return ArtifactView(source="job:j", job_id="j", job_name="j", manifest_sha256="0" * 64, files=files)


def test_bytes_of_the_weights_in_both_forms() -> None:
    shards = {
        "model/model-00001-of-00002.safetensors": 100,
        "model/model-00002-of-00002.safetensors": 50,
        "compact/model.sparse-00001-of-00002.safetensors.zst": 20,
        "compact/model.sparse-00002-of-00002.safetensors.zst": 10,
        "model/tokenizer.json": 7,
        "masks/step-5/mask.safetensors": 9,
    }
    assert weight_bytes(artifact(**shards)) == (150, 30)
    assert weight_bytes(artifact(**{"model/model.safetensors": 100})) == (100, None)


def test_a_dense_model_has_no_compact_size(tmp_path: Path) -> None:
    jobs = [
        JobView(id=name, name=name, campaign_id="c", state=JobState.SUCCEEDED, created_at=0.0)
        for name in ("teacher", "sparse")
    ]
    table = results_table(jobs, tmp_path, {"teacher": (90_000_000, None), "sparse": (90_000_000, 49_000_000)})
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table)
    header, teacher, sparse = captured.get().splitlines()[1:4]
    assert header.split()[-3:] == ["PLAIN", "COMPACT", "TIME"]
    assert teacher.split()[1:3] == ["90.0", "MB"] and "49.0 MB" not in teacher
    assert "90.0 MB  49.0 MB" in sparse
