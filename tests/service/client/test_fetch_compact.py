"""Fetching weights that have a compact form: what travels, what arrives, and what happens if it is cut or damaged."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zstandard
from safetensors.numpy import save
from typer.testing import CliRunner

from prunus.configs.artifacts.compact import unpack
from prunus.configs.artifacts.compact.convert import convert
from prunus.configs.artifacts.compact.pack import to_compact
from prunus.configs.artifacts.compact.read import load_sparse
from prunus.configs.artifacts.inspection import inspect
from prunus.configs.artifacts.manifest import FileEntry, verify
from prunus.configs.errors import Damaged
from prunus.service.cli.main import app
from prunus.service.client import Client, destination, download
from prunus.service.client.fetch import Fetched, fetch
from prunus.service.errors import NotFound, Refused, Unreachable
from tests.service.artifact_server import ArtifactServer, serving

Fetch = Callable[..., Fetched]
PACKED = "compact/model.sparse.safetensors.zst"


def sparse_file(seed: int = 0, size: int = 256) -> bytes:
    """Safetensors of one matrix, nine of ten of its elements zero, and a bias."""
    draw = np.random.default_rng(seed)
    matrix = draw.normal(size=(size, size)).astype(np.float32)
    matrix[draw.random((size, size)) < 0.9] = 0
    name = f"bert.encoder.layer.{seed}.output.dense"
    return save({f"{name}.weight": matrix, f"{name}.bias": matrix[0]}, {"format": "pt"})


def packed(plain: bytes, folder: Path) -> bytes:
    (folder / "plain").write_bytes(plain)
    to_compact(folder / "plain", folder / "compact")
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress((folder / "compact").read_bytes())


@pytest.fixture
def plain() -> bytes:
    return sparse_file()


@pytest.fixture
def server(plain: bytes, tmp_path: Path) -> ArtifactServer:
    files = {
        "model/config.json": b"{}",
        "model/model.safetensors": plain,
        "masks/step-10/mask.safetensors": b"mask bits",
    }
    return ArtifactServer({**files, PACKED: packed(plain, tmp_path)})


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def get(server: ArtifactServer, dest: Path) -> Iterator[Fetch]:
    with serving(server) as url, Client(url) as client:
        yield lambda **options: fetch(client, "prune", dest, pause=lambda _: None, **options)


def present(dest: Path) -> set[str]:
    return {path.relative_to(dest).as_posix() for path in dest.rglob("*")} - {"masks", "masks/step-10"}


def replaced(server: ArtifactServer, data: bytes) -> None:
    """Another packed file, to which the manifest swears."""
    server.files[PACKED] = data
    server.listed[PACKED] = server.entry(data)


PLAIN = {"config.json", "manifest.json", "model.safetensors", "masks/step-10/mask.safetensors"}
COMPACT = PLAIN - {"model.safetensors"} | {"model.sparse.safetensors"}


def test_the_plain_form_arrives_and_the_compact_one_travels(
    get: Fetch, server: ArtifactServer, dest: Path, plain: bytes
) -> None:
    fetched = get()
    assert (dest / "model.safetensors").read_bytes() == plain
    assert present(dest) == PLAIN
    assert {path for path, _ in server.requests} == server.files.keys() - {"model/model.safetensors"}
    others = len(b"{}") + len(b"mask bits")
    assert fetched.downloaded_bytes == len(server.files[PACKED]) + others < fetched.total_bytes / 4
    assert fetched.total_bytes == len(plain) + others
    assert fetched.summary.endswith(f"; {fetched.downloaded_bytes:,} bytes were downloaded")
    assert (fetched.notes, set(fetched.files)) == ((), PLAIN - {"manifest.json"})
    assert verify(dest).files.keys() == PLAIN - {"manifest.json"}
    server.requests.clear()
    assert get().downloaded_bytes == 0
    assert server.requests == []


def test_the_compact_form_is_left_where_it_is_asked_for(
    get: Fetch, server: ArtifactServer, dest: Path, plain: bytes, tmp_path: Path
) -> None:
    fetched = get(compact=True)
    assert present(dest) == COMPACT
    assert verify(dest).files.keys() == COMPACT - {"manifest.json"}
    assert fetched.total_bytes == sum((dest / name).stat().st_size for name in fetched.files)
    assert load_sparse(dest)["bert.encoder.layer.0.output.dense.weight"].shape == (256, 256)
    server.requests.clear()
    assert get(compact=True).downloaded_bytes == 0
    assert server.requests == []
    convert(dest, tmp_path / "plain-again", "plain")
    assert (tmp_path / "plain-again" / "model.safetensors").read_bytes() == plain
    assert inspect(dest).totals == inspect(tmp_path / "plain-again").totals
    assert json.loads((dest / "manifest.json").read_text())["parents"] == {"model": "org/base"}


def test_both_forms_may_be_fetched_one_after_the_other(get: Fetch, dest: Path, plain: bytes) -> None:
    get(compact=True)
    get()
    assert present(dest) == PLAIN | COMPACT
    assert verify(dest).files.keys() == (PLAIN | COMPACT) - {"manifest.json"}
    assert (dest / "model.safetensors").read_bytes() == plain


def test_a_damaged_compact_file_of_an_earlier_fetch_is_brought_again(get: Fetch, dest: Path) -> None:
    get(compact=True)
    before = (dest / "model.sparse.safetensors").read_bytes()
    (dest / "model.sparse.safetensors").write_bytes(before[:-1] + b"!")
    get(compact=True)
    assert (dest / "model.sparse.safetensors").read_bytes() == before


@pytest.mark.parametrize("compact", [False, True])
def test_a_cut_transfer_is_continued(
    get: Fetch, server: ArtifactServer, dest: Path, tmp_path: Path, compact: bool
) -> None:
    plain = sparse_file(size=1200)
    server.files = {"model/model.safetensors": plain, PACKED: packed(plain, tmp_path)}
    server.listed = {name: server.entry(data) for name, data in server.files.items()}
    server.cuts = [300_000, *[0] * download.MAX_CUTS]
    with pytest.raises(Unreachable):
        get(compact=compact)
    reached = (dest / f"{PACKED}.part").stat().st_size
    assert 0 < reached <= 300_000 and not (dest / "manifest.json").exists()
    server.requests.clear()
    server.cuts = []
    assert get(compact=compact).downloaded_bytes == len(server.files[PACKED]) - reached
    assert server.requests == [(PACKED, reached)]
    assert present(dest) == {"manifest.json", "model.sparse.safetensors" if compact else "model.safetensors"}


def test_a_fetch_that_died_while_it_unpacked_downloads_nothing_twice(
    get: Fetch, server: ArtifactServer, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_compact: Path, plain: Path) -> None:
        plain.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(unpack, "to_plain", die)
        with pytest.raises(KeyboardInterrupt):
            get()
    assert f"{PACKED}" in present(dest)
    server.requests.clear()
    get()
    assert PACKED not in {path for path, _ in server.requests}
    assert present(dest) == PLAIN


def damaged(data: bytes) -> bytes:
    return data[:500] + bytes([data[500] ^ 1]) + data[501:]


def of_another_file(tmp_path: Path) -> bytes:
    return packed(sparse_file(seed=3), tmp_path)


def bomb(_: Path) -> bytes:
    return zstandard.ZstdCompressor().compress(bytes(64 * 1024**2))


def bomb_without_a_size(_: Path) -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(bytes(64 * 1024**2)) + packer.flush()


def window_of_gigabytes(_: Path) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, compression_level=1)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(os.urandom(1000)) + packer.flush()


WRONG = {
    "no frame": (lambda _: b"no frame at all", "cannot be unpacked"),
    "empty": (lambda _: b"", "not a whole safetensors file"),
    "a bomb": (bomb, "unpacks to more than the plain file's"),
    "a bomb without a size": (bomb_without_a_size, "unpacks to more than the plain file's"),
    "a window of gigabytes": (window_of_gigabytes, "cannot be unpacked"),
    "another file": (of_another_file, "is the compact form of another file"),
}


@pytest.mark.parametrize(("make", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_packed_file_that_is_no_compact_form_is_replaced_by_the_plain_file(
    get: Fetch, server: ArtifactServer, dest: Path, tmp_path: Path, plain: bytes, make: Callable[..., bytes], words: str
) -> None:
    replaced(server, make(tmp_path))
    fetched = get()
    assert (dest / "model.safetensors").read_bytes() == plain
    assert present(dest) == PLAIN
    assert len(fetched.notes) == 1 and words in fetched.notes[0]
    assert "the plain file was downloaded" in fetched.notes[0]
    assert fetched.downloaded_bytes == sum(map(len, server.files.values()))
    verify(dest)


@pytest.mark.parametrize(("make", "words"), WRONG.values(), ids=WRONG.keys())
def test_the_same_is_an_error_where_the_compact_form_was_asked_for(
    get: Fetch, server: ArtifactServer, dest: Path, tmp_path: Path, make: Callable[..., bytes], words: str
) -> None:
    replaced(server, make(tmp_path))
    with pytest.raises(Damaged, match=f"{words}.*without --compact"):
        get(compact=True)
    assert not {"manifest.json", "model.sparse.safetensors", "model.sparse.safetensors.part"} & present(dest)


def test_a_bomb_is_stopped_at_the_plain_files_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: bytes
) -> None:
    monkeypatch.setattr(unpack, "_HEADER_SLACK", 0)
    monkeypatch.setattr(unpack, "_BLOCK", 1000)
    (tmp_path / "bomb.zst").write_bytes(bomb(tmp_path))
    longest = 0

    class Watched(type(tmp_path)):  # type: ignore[misc]
        def unlink(self, missing_ok: bool = False) -> None:
            nonlocal longest
            longest = max(longest, self.stat().st_size if self.exists() else 0)
            super().unlink(missing_ok)

    entry = FileEntry(sha256=hashlib.sha256(plain).hexdigest(), size=len(plain))
    with pytest.raises(Damaged):
        unpack.unpack(tmp_path / "bomb.zst", Watched(tmp_path / "out"), entry)
    assert 0 < longest <= len(plain)
    assert not (tmp_path / "out").exists()


def test_bits_that_were_changed_before_packing_are_seen(
    get: Fetch, server: ArtifactServer, tmp_path: Path, plain: bytes
) -> None:
    packed(plain, tmp_path)
    content = bytearray((tmp_path / "compact").read_bytes())
    content[len(content) // 2] ^= 1  # a value: sizes, bits and offsets stay right
    replaced(server, zstandard.ZstdCompressor().compress(bytes(content)))
    with pytest.raises(Damaged, match="holds other weights than its manifest says"):
        get(compact=True)
    assert "turned back it is not the file" in get().notes[0]


def test_bytes_that_change_on_the_way_are_told_and_the_plain_file_comes(
    get: Fetch, server: ArtifactServer, dest: Path, plain: bytes
) -> None:
    server.files[PACKED] = damaged(server.files[PACKED])
    assert f"{PACKED} of job:j1 differs from its manifest" in get().notes[0]
    assert (dest / "model.safetensors").read_bytes() == plain
    with pytest.raises(Damaged, match="differs from its manifest"):
        get(compact=True)


def test_shards_travel_one_by_one(server: ArtifactServer, get: Fetch, dest: Path, tmp_path: Path) -> None:
    shards = {number: sparse_file(number) for number in (1, 2)}
    server.files = {"model/model.safetensors.index.json": b"{}"}
    for number, data in shards.items():
        server.files[f"model/model-0000{number}-of-00002.safetensors"] = data
        server.files[f"compact/model.sparse-0000{number}-of-00002.safetensors.zst"] = packed(data, tmp_path)
    server.listed = {name: server.entry(data) for name, data in server.files.items()}
    get()
    assert {path for path, _ in server.requests} == {
        name for name in server.files if ".index" in name or ".zst" in name
    }
    for number, data in shards.items():
        assert (dest / f"model-0000{number}-of-00002.safetensors").read_bytes() == data
    shutil.rmtree(dest)
    get(compact=True)
    assert len(load_sparse(dest)) == 4
    verify(dest)


def test_masks_alone_bring_no_weights(get: Fetch, server: ArtifactServer, dest: Path) -> None:
    assert get(masks_only=True).files == ("masks/step-10/mask.safetensors",)
    assert [path for path, _ in server.requests] == ["masks/step-10/mask.safetensors"]
    with pytest.raises(Refused, match="one form only"):
        get(masks_only=True, compact=True)


def test_an_artifact_without_a_compact_form_comes_as_before(
    get: Fetch, server: ArtifactServer, dest: Path, plain: bytes
) -> None:
    del server.listed[PACKED]
    with pytest.raises(NotFound, match=r"job:prune has no compact form: .* fetch it without --compact"):
        get(compact=True)
    assert not dest.exists()
    assert get().downloaded_bytes == len(plain) + len(b"{}") + len(b"mask bits")
    assert (dest / "model.safetensors").read_bytes() == plain


def test_what_an_older_prunus_fetched_as_a_file_goes(get: Fetch, server: ArtifactServer, dest: Path) -> None:
    get()
    (dest / "compact").mkdir()
    (dest / PACKED).write_bytes(server.files[PACKED])
    document = json.loads((dest / "manifest.json").read_text())
    document["files"][PACKED] = server.listed[PACKED]
    (dest / "manifest.json").write_text(json.dumps(document))
    get()
    assert present(dest) == PLAIN
    verify(dest)


def test_where_both_forms_do_not_fit_the_plain_one_comes(
    get: Fetch, server: ArtifactServer, dest: Path, plain: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=len(plain) + 1000)
    monkeypatch.setattr(destination.shutil, "disk_usage", lambda _: usage)
    get()
    assert PACKED not in {path for path, _ in server.requests}
    assert present(dest) == PLAIN


def test_a_link_in_the_place_of_the_packed_file_is_not_followed(get: Fetch, dest: Path, tmp_path: Path) -> None:
    get()
    (dest / "model.safetensors").unlink()
    (tmp_path / "outside").mkdir()
    (dest / "compact").symlink_to(tmp_path / "outside")
    with pytest.raises((Damaged, Refused)):
        get()
    assert list((tmp_path / "outside").iterdir()) == []


def test_progress_counts_what_travels(get: Fetch, server: ArtifactServer) -> None:
    seen: list[tuple[int, int]] = []
    get(progress=lambda _name, done, total: seen.append((done, total)))
    expected = sum(len(data) for name, data in server.files.items() if name != "model/model.safetensors")
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (expected, expected)


def test_the_command_leaves_the_compact_form_and_tells_what_travelled(
    server: ArtifactServer, dest: Path, tmp_path: Path
) -> None:
    with serving(server) as url:
        done = CliRunner().invoke(app, ["fetch", "job:prune", str(dest), "--compact", "--json", "--url", url])
        told = json.loads(done.stdout)
        assert (done.exit_code, told["notes"]) == (0, [])
        assert "model.sparse.safetensors" in told["files"] and told["downloaded_bytes"] < told["total_bytes"]
        back = CliRunner().invoke(app, ["convert", str(dest), str(tmp_path / "back"), "--to", "plain"])
        assert back.exit_code == 0 and CliRunner().invoke(app, ["inspect", str(dest)]).exit_code == 0
        both = CliRunner().invoke(app, ["fetch", "prune", str(dest), "--compact", "--masks-only", "--url", url])
        assert both.exit_code == Refused.exit_code and "masks have one form only" in both.stderr
        server.files[PACKED] = damaged(server.files[PACKED])
        plain = CliRunner().invoke(app, ["fetch", "prune", str(tmp_path / "new"), "--url", url])
        assert plain.exit_code == 0 and "the plain file was downloaded" in plain.stderr
        del server.listed[PACKED]
        none = CliRunner().invoke(app, ["fetch", "prune", str(tmp_path / "dense"), "--compact", "--url", url])
        assert none.exit_code == NotFound.exit_code and "has no compact form" in none.stderr
