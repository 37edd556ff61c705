"""The cache: whole entries only, whatever happens around it."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from prunus.jobs.data.pipeline.cache import content_key, entry, read_meta
from prunus.jobs.errors import DataError, StorageError


def test_an_entry_is_written_once(tmp_path: Path) -> None:
    calls = []

    def write(folder: Path) -> dict:
        calls.append(folder)
        (folder / "x.bin").write_bytes(b"abc")
        return {"count": 3}

    first = entry(tmp_path / "new" / "cache", "k", write)
    assert entry(tmp_path / "new" / "cache", "k", write) == first
    assert len(calls) == 1
    assert read_meta(first) == {"count": 3, "files": {"x.bin": 3}}


def test_two_builders_at_a_time_agree_on_one_entry(tmp_path: Path) -> None:
    both_inside = threading.Barrier(2, timeout=20)
    found = []

    def build(name: str) -> None:
        def write(folder: Path) -> dict:
            both_inside.wait()  # neither has renamed yet
            (folder / "x.bin").write_text(name)
            return {"by": name}

        found.append(entry(tmp_path, "k", write))

    threads = [threading.Thread(target=build, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [tmp_path / "k"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["k"]
    assert read_meta(found[0])["by"] == (found[0] / "x.bin").read_text()


def test_a_cut_entry_is_made_again(tmp_path: Path) -> None:
    def write(folder: Path) -> dict:
        (folder / "x.bin").write_bytes(b"abc")
        return {}

    path = entry(tmp_path, "k", write)
    (path / "x.bin").write_bytes(b"a")
    assert (entry(tmp_path, "k", write) / "x.bin").read_bytes() == b"abc"


def test_a_failed_builder_leaves_nothing(tmp_path: Path) -> None:
    def write(folder: Path) -> dict:
        (folder / "x.bin").write_bytes(b"abc")
        raise DataError("no")

    with pytest.raises(DataError):
        entry(tmp_path, "k", write)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    def write(folder: Path) -> dict:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="No space left"):
        entry(tmp_path, "k", write)
    assert list(tmp_path.iterdir()) == []


def test_keys_keep_parts_apart() -> None:
    assert content_key("a", "bc") != content_key("ab", "c")
    assert content_key("a", 1) == content_key("a", 1)


GANG = """
import sys, os
import prunus.jobs, torch, torch.distributed as dist
from pathlib import Path
from prunus.jobs.data.pipeline.cache import entry, shared_entry
from prunus.jobs.errors import DataError
from prunus.jobs.ranks import Ranks
rank = 1 if os.fork() == 0 else 0  # one import for both
dist.init_process_group("gloo", init_method="file://{folder}/meet", rank=rank, world_size=2)
ranks = Ranks(rank, 2, torch.device("cpu"))

def find():
    assert rank == 0, "only rank 0 builds"
    def write(folder):
        (folder / "x.bin").write_bytes(b"abc")
        return {{}}
    return entry(Path({folder!r}) / "cache", "k", write)

assert (shared_entry(ranks, find) / "x.bin").read_bytes() == b"abc"

def fail():
    raise DataError("empty file")

try:
    shared_entry(ranks, fail)
except DataError as error:
    assert str(error) == "empty file"
    Path("{folder}/told-" + str(rank)).touch()
if rank == 0:
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_rank_0_builds_and_the_others_open(tmp_path: Path) -> None:
    script = GANG.format(folder=str(tmp_path))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, timeout=120, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "told-0").exists() and (tmp_path / "told-1").exists()
