"""Fetching over a real connection that is cut, tampered with, or lied about."""

import hashlib
import json
from pathlib import Path

import pytest

from prunus.configs.artifacts.manifest import verify
from prunus.configs.errors import Damaged
from prunus.service.errors import NotFound
from tests.service.artifact_server import ArtifactServer
from tests.service.client.conftest import BIG, FILES, Fetch


def test_model_files_land_at_the_top_and_the_rest_keeps_its_path(get: Fetch, tmp_path: Path) -> None:
    dest = tmp_path / "out"
    fetched = get(dest)
    present = {p.relative_to(dest).as_posix(): p.read_bytes() for p in dest.rglob("*") if p.is_file()}
    manifest = json.loads(present.pop("manifest.json"))
    assert present == {
        "config.json": FILES["model/config.json"],
        "model.safetensors": BIG,
        "masks/step-10/mask.safetensors": b"mask bits",
        "figures/sparsity.png": b"a picture",
    }
    assert manifest["parents"] == {"model": "org/base"}
    assert manifest["source_manifest_sha256"] == fetched.manifest_sha256
    assert manifest["files"]["config.json"]["sha256"] == hashlib.sha256(FILES["model/config.json"]).hexdigest()
    assert fetched.downloaded_bytes == sum(map(len, FILES.values()))
    verify(dest)


def test_a_second_fetch_verifies_and_downloads_nothing(get: Fetch, server: ArtifactServer, tmp_path: Path) -> None:
    get(tmp_path)
    server.requests.clear()
    assert get(tmp_path).downloaded_bytes == 0
    assert server.requests == []


def test_a_damaged_file_of_an_earlier_fetch_is_brought_again(
    get: Fetch, server: ArtifactServer, tmp_path: Path
) -> None:
    get(tmp_path)
    server.requests.clear()
    (tmp_path / "model.safetensors").write_bytes(BIG[:-1] + b"!")
    get(tmp_path)
    assert [path for path, _ in server.requests] == ["model/model.safetensors"]
    verify(tmp_path)


def test_a_listing_that_differs_from_the_manifest_is_refused(
    get: Fetch, server: ArtifactServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = server.view()
    view = json.loads(honest)
    view["files"][0]["sha256"] = "0" * 64
    monkeypatch.setattr(server, "view", lambda: json.dumps(view).encode())
    with pytest.raises(Damaged, match="otherwise than the manifest"):
        get(tmp_path)


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "model/../../evil", "a\\b", "C:evil", "a\nb", ""])
def test_a_path_that_leads_out_is_refused_before_anything_is_written(
    get: Fetch, server: ArtifactServer, tmp_path: Path, path: str
) -> None:
    server.files[path] = b"evil"
    server.listed[path] = server.entry(b"evil")
    with pytest.raises(Damaged, match="leads out of it"):
        get(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_masks_only_brings_masks_and_the_rest_can_follow(get: Fetch, server: ArtifactServer, tmp_path: Path) -> None:
    assert get(tmp_path, masks_only=True).files == ("masks/step-10/mask.safetensors",)
    assert verify(tmp_path).files.keys() == {"masks/step-10/mask.safetensors"}
    server.requests.clear()
    get(tmp_path)
    assert "masks/step-10/mask.safetensors" not in {path for path, _ in server.requests}
    assert verify(tmp_path).files.keys() >= {"masks/step-10/mask.safetensors", "config.json"}
    get(tmp_path, masks_only=True)
    assert "config.json" in verify(tmp_path).files


def test_masks_of_a_job_without_masks(get: Fetch, server: ArtifactServer, tmp_path: Path) -> None:
    del server.listed["masks/step-10/mask.safetensors"]
    with pytest.raises(NotFound, match="has no masks"):
        get(tmp_path / "out", masks_only=True)


def test_progress_grows_to_the_total(get: Fetch, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    get(tmp_path, progress=lambda _name, done, total: seen.append((done, total)))
    expected = sum(map(len, FILES.values()))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (expected, expected)
