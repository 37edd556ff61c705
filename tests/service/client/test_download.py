"""One file over a connection that is cut."""

from pathlib import Path

import pytest

from prunus.configs.artifacts.manifest import verify
from prunus.configs.errors import Damaged
from prunus.service.client import download
from prunus.service.errors import Unreachable
from tests.service.artifact_server import ArtifactServer
from tests.service.client.conftest import BIG, Fetch


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
    server.cuts = [10, 10, 200_000] + [0] * download.MAX_CUTS
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
