"""What is read of a directory that takes part in a comparison, and what is refused."""

from pathlib import Path

import pytest

from prunus.configs import ConfigError
from prunus.configs.artifacts import mask_file
from prunus.configs.artifacts.comparison.candidates import read_candidate
from prunus.configs.errors import ArtifactMissing, ArtifactRefused
from tests.configs.artifacts.comparison.compared_artifacts import record, write_artifact


def test_artifacts_a_bare_mask_and_a_dense_job_are_read(tmp_path: Path) -> None:
    whole = read_candidate(write_artifact(tmp_path / "j1", "x", "x", wer=0.5))
    assert (whole.name, whole.source) == ("x", str(tmp_path / "j1"))
    assert whole.record is not None and whole.record.metrics["eval/wer"] == 0.5
    assert whole.mask is not None and whole.mask.shapes == {"a": (2, 2), "b": (2,)}
    for place in (tmp_path / "j1/masks/step-5", tmp_path / "j1/masks/step-5" / mask_file.FILE_NAME):
        bare = read_candidate(place)
        assert (bare.name, bare.record) == (place.name, None)
        assert bare.mask is not None
    assert read_candidate(write_artifact(tmp_path / "j2", "dense"), "called").name == "called"
    assert read_candidate(tmp_path / "j2").mask is None


def test_what_differs_from_its_manifest_is_refused(tmp_path: Path) -> None:
    root = write_artifact(tmp_path / "a", "x", "x")
    (root / "job.json").write_text((root / "job.json").read_text() + " ")
    with pytest.raises(ConfigError, match=r"job\.json differs from its manifest"):
        read_candidate(root)
    root = write_artifact(tmp_path / "b", "x", "x")
    (root / "masks/step-5/mask.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"mask\.safetensors is missing or a link"):
        read_candidate(root)


def test_a_directory_without_anything_to_compare_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing, match=r"has neither a mask \(masks/step-N/mask.safetensors\) nor job.json"):
        read_candidate(tmp_path)
    (tmp_path / "job.json").write_text("[]")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_candidate(tmp_path)
    comparing = record("c").model_copy(update={"spec": {"name": "c", "compare": {"jobs": ["a", "b"]}}})
    (tmp_path / "job.json").write_text(comparing.model_dump_json())
    with pytest.raises(ArtifactRefused, match="compares and has nothing to compare itself"):
        read_candidate(tmp_path)
