"""Fetching over a real connection that is cut, tampered with, or lied about."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prunus.configs.artifacts.manifest import verify
from prunus.configs.errors import Damaged
from prunus.service.client import Client
from prunus.service.client import download as download_module
from prunus.service.client import fetch as fetch_module
from prunus.service.client.fetch import Fetched, fetch, plan
from prunus.service.errors import NotFound, Refused, Unreachable
from prunus.service.wire import FileView
from tests.service.artifact_server import ArtifactServer, serving

BIG = bytes(range(256)) * 4096
FILES = {
    "model/config.json": b'{"hidden_size": 8}',
    "model/model.safetensors": BIG,
    "masks/step-10/mask.safetensors": b"mask bits",
    "figures/sparsity.png": b"a picture",
}
Fetch = Callable[..., Fetched]


@pytest.fixture
def server() -> ArtifactServer:
    return ArtifactServer(FILES)


@pytest.fixture
def get(server: ArtifactServer) -> Iterator[Fetch]:
    pauses: list[float] = []
    with serving(server) as url, Client(url) as client:
        yield lambda dest, **options: fetch(client, "prune", dest, pause=pauses.append, **options)


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


def test_cut_connections_are_continued_from_the_byte_that_was_reached(
    get: Fetch, server: ArtifactServer, tmp_path: Path
) -> None:
    server.listed = {name: entry for name, entry in server.listed.items() if name.endswith("model.safetensors")}
    server.cuts = [300_000, 0, 500_000]
    get(tmp_path)
    offsets = [offset for _, offset in server.requests]
    assert (tmp_path / "model.safetensors").read_bytes() == BIG
    assert offsets[0] == 0 and len(offsets) == 4
    assert offsets == sorted(offsets) and 0 < offsets[1] <= 300_000 and offsets[3] > offsets[1]


def test_a_server_that_always_cuts_is_given_up_and_a_later_fetch_goes_on(
    get: Fetch, server: ArtifactServer, tmp_path: Path
) -> None:
    server.cuts = [10, 10, 200_000] + [0] * download_module.MAX_CUTS
    server.listed = {"model/model.safetensors": server.listed["model/model.safetensors"]}
    with pytest.raises(Unreachable):
        get(tmp_path)
    reached = (tmp_path / "model.safetensors.part").stat().st_size
    assert not (tmp_path / "manifest.json").exists() and not (tmp_path / "model.safetensors").exists()
    server.requests.clear()
    server.cuts = []
    fetched = get(tmp_path)
    assert server.requests == [("model/model.safetensors", reached)]
    assert fetched.downloaded_bytes == len(BIG) - reached
    verify(tmp_path)


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


def test_a_part_that_does_not_fit_is_thrown_away(get: Fetch, server: ArtifactServer, tmp_path: Path) -> None:
    get(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.part").write_bytes(b"something else")
    server.requests.clear()
    get(tmp_path)
    assert server.requests == [("model/model.safetensors", 14), ("model/model.safetensors", 0)]
    assert (tmp_path / "model.safetensors").read_bytes() == BIG


def test_tampered_bytes_are_refused_and_nothing_of_them_is_kept(
    get: Fetch, server: ArtifactServer, tmp_path: Path
) -> None:
    server.files["model/model.safetensors"] = b"x" * len(BIG)
    with pytest.raises(Damaged, match=r"model/model.safetensors of job:j1 differs from its manifest"):
        get(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert not names & {"model.safetensors", "model.safetensors.part", "manifest.json"}


def test_more_bytes_than_promised_are_refused(get: Fetch, server: ArtifactServer, tmp_path: Path) -> None:
    server.files["model/config.json"] += b" and more"
    with pytest.raises(Damaged, match="longer than its manifest says"):
        get(tmp_path)


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


@pytest.mark.parametrize(
    "names",
    [
        ("model/a", "a"),
        ("model/A", "a"),
        ("model/manifest.json",),
        ("a", "a.part"),
        ("a", "a/b"),
        (".prunus-fetch.json",),
    ],
)
def test_two_files_with_one_path_are_refused(names: tuple[str, ...]) -> None:
    files = [FileView(path=name, size=1, sha256="0" * 64) for name in names]
    with pytest.raises(Damaged):
        plan(files)


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


def test_a_full_disk_is_told_and_the_next_fetch_goes_on(
    get: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(download_module.os, "fsync", full)
        patch.setattr(fetch_module, "write_atomic", lambda path, text: path.write_text(text))
        with pytest.raises(Refused, match="is full; free some space and run the same command again"):
            get(tmp_path)
    assert not (tmp_path / "manifest.json").exists()
    get(tmp_path)
    verify(tmp_path)


def test_too_little_space_is_told_before_the_download(
    get: Fetch, server: ArtifactServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(fetch_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(Refused, match="has 1,000 bytes free, the fetch needs"):
        get(tmp_path)
    assert server.requests == []


def test_progress_grows_to_the_total(get: Fetch, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    get(tmp_path, progress=lambda _name, done, total: seen.append((done, total)))
    expected = sum(map(len, FILES.values()))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (expected, expected)
