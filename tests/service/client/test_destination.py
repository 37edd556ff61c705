"""The directory that a fetch fills."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from prunus.configs.artifacts.manifest import verify
from prunus.configs.errors import Damaged
from prunus.service.client import destination, download
from prunus.service.errors import Refused
from tests.service.artifact_server import ArtifactServer
from tests.service.client.conftest import FILES, Fetch


def test_a_link_in_the_destination_is_not_followed(get: Fetch, server: ArtifactServer, tmp_path: Path) -> None:
    dest, outside = tmp_path / "out", tmp_path / "outside"
    get(dest)
    outside.mkdir()
    shutil.rmtree(dest / "figures")
    (dest / "figures").symlink_to(outside)
    with pytest.raises((Damaged, Refused)):
        get(dest)
    (dest / "figures").unlink()
    (dest / "model.safetensors").unlink()
    (dest / "model.safetensors.part").symlink_to(outside / "stolen")
    with pytest.raises(Damaged, match="symbolic link"):
        get(dest)
    assert list(outside.iterdir()) == []


def test_a_directory_with_other_files_is_left_alone(get: Fetch, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(Refused, match=r"holds other files \(thesis.tex\); name an empty directory"):
        get(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_directory_of_another_artifact_is_left_alone(get: Fetch, server: ArtifactServer, tmp_path: Path) -> None:
    get(tmp_path)
    server.files["model/config.json"] = b"{}"
    server.listed["model/config.json"] = server.entry(b"{}")
    with pytest.raises(Refused, match="an older state of it or another"):
        get(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == FILES["model/config.json"]


def test_files_put_beside_a_finished_fetch_are_named(get: Fetch, tmp_path: Path) -> None:
    get(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(Refused, match=r"not of job:prune: notes.txt"):
        get(tmp_path)


def test_a_full_disk_is_told_and_the_next_fetch_goes_on(
    get: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(download.os, "fsync", full)
        patch.setattr(destination, "write_atomic", lambda path, text: path.write_text(text))
        with pytest.raises(Refused, match="is full; free some space and run the same command again"):
            get(tmp_path)
    assert not (tmp_path / "manifest.json").exists()
    get(tmp_path)
    verify(tmp_path)


def test_too_little_space_is_told_before_the_download(
    get: Fetch, server: ArtifactServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(destination.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(Refused, match="has 1,000 bytes free, the fetch needs"):
        get(tmp_path)
    assert server.requests == []
