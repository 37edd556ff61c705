"""Manifests prove files; nothing leads out of an artifact; a reader never sees half a file."""

import hashlib
import json
from pathlib import Path

import pytest

from prunus.configs import ConfigError
from prunus.configs.artifacts.layout import JobDirectory
from prunus.configs.artifacts.manifest import (
    MANIFEST,
    Manifest,
    build_entries,
    read_manifest,
    safe_relative,
    sha256_file,
    verify,
)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    root = tmp_path / "artifacts"
    (root / "model").mkdir(parents=True)
    (root / "model/config.json").write_text("{}")
    (root / "masks.bin").write_bytes(b"\0" * 1000)
    manifest = Manifest(job_id="j1", job_name="a", attempt_id="j1-a1", files=build_entries(root))
    (root / MANIFEST).write_text(manifest.model_dump_json())
    return root


def rename_entry(root: Path, name: str) -> None:
    manifest = json.loads((root / MANIFEST).read_text())
    manifest["files"][name] = manifest["files"].pop("masks.bin")
    (root / MANIFEST).write_text(json.dumps(manifest))


def test_a_whole_artifact_is_verified(artifact: Path) -> None:
    manifest = verify(artifact)
    assert set(manifest.files) == {"model/config.json", "masks.bin"}
    assert manifest.files["model/config.json"].sha256 == hashlib.sha256(b"{}").hexdigest()
    assert manifest.files["masks.bin"].size == 1000


def test_digests_are_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_missing_file_is_found(artifact: Path) -> None:
    (artifact / "masks.bin").unlink()
    with pytest.raises(ConfigError, match=r"masks\.bin is missing or a link; fetch the artifact again"):
        verify(artifact)
    assert verify(artifact, prefix="model/").job_id == "j1"


@pytest.mark.parametrize("content", [b"\0" * 999, b"\0" * 1001, b"\0" * 999 + b"\1", b""])
def test_a_changed_file_is_found(artifact: Path, content: bytes) -> None:
    (artifact / "masks.bin").write_bytes(content)
    with pytest.raises(ConfigError, match="differs from its manifest"):
        verify(artifact)


def test_a_link_in_place_of_a_file_is_found(artifact: Path, tmp_path: Path) -> None:
    (artifact / "masks.bin").rename(tmp_path / "elsewhere")
    (artifact / "masks.bin").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"masks\.bin is missing or a link"):
        verify(artifact)


def test_a_link_in_place_of_a_directory_is_found(artifact: Path, tmp_path: Path) -> None:
    (artifact / "model").rename(tmp_path / "elsewhere")
    (artifact / "model").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"config\.json is missing or a link"):
        verify(artifact)


def test_the_artifact_itself_may_be_reached_by_a_link(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(artifact)
    assert verify(tmp_path / "latest").job_id == "j1"


BAD_NAMES = ["../x", "a/../../x", "/etc/passwd", "", ".", "./", "a\\b", "C:/x", "C:x", "a\0b", "a\nb", ".."]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_leads_out_is_refused(artifact: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="leads out of it; the source is not one of ours"):
        safe_relative(name)
    rename_entry(artifact, name)
    with pytest.raises(ConfigError, match="leads out of it"):
        verify(artifact)


@pytest.mark.parametrize("name", ["a", "a/b.c", "masks/step-10/mask.safetensors", "..a", "a..b/c", "ü"])
def test_an_ordinary_name_is_taken(name: str) -> None:
    assert safe_relative(name).as_posix() == name


def test_an_artifact_without_manifest_is_unfinished(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no manifest.json: it was not finished or is not ours"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"job_id": 5}'])
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_manifest(tmp_path)


def test_a_manifest_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_manifest(tmp_path)


def test_a_manifest_of_a_newer_writer_is_read(artifact: Path) -> None:
    manifest = json.loads((artifact / MANIFEST).read_text()) | {"new": 1}
    (artifact / MANIFEST).write_text(json.dumps(manifest))
    assert verify(artifact).job_name == "a"


def test_a_jobs_files_lie_where_the_page_says() -> None:
    job = JobDirectory("/s/jobs/j1")
    assert job.outcome(2) == Path("/s/jobs/j1/attempts/2/outcome.json")
    assert job.rank_error(1, 3) == Path("/s/jobs/j1/attempts/1/error-rank-3.json")
    assert job.rank_log(1, 0) == Path("/s/jobs/j1/attempts/1/rank-0.log")
    assert job.launch(1).parent == job.progress(1).parent == job.attempt(1)
    assert (job.artifacts.name, job.checkpoints.name, job.tracking.name) == ("artifacts", "checkpoints", "tracking")
