"""Aside, then renamed: what a reader sees after a crash, an error, or several writers."""

import os
import threading
from pathlib import Path

import pytest

from prunus.configs.artifacts.atomic_write import commit, directory_aside, file_aside, leftovers, write_atomic


def test_a_crash_before_the_rename_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "outcome.json"
    write_atomic(path, "old")

    def crash(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["outcome.json"]
    assert path.read_text() == "old"


def test_the_content_is_on_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), sync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b))[1])
    write_atomic(tmp_path / "new/x.json", "ü")
    assert calls == ["fsync", "replace", "fsync"]
    assert (tmp_path / "new/x.json").read_text(encoding="utf-8") == "ü"


def test_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    texts = [str(i) * 20_000 for i in range(8)]

    def write(text: str) -> None:
        for _ in range(10):
            write_atomic(path, text)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for _ in range(50):
        if path.exists():
            assert path.read_text() in texts
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert [entry.name for entry in tmp_path.iterdir()] == ["progress.json"]


def test_a_file_that_was_not_finished_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.bin"
    with file_aside(path) as aside:
        aside.write_bytes(b"old")
    with pytest.raises(ValueError, match="stop"), file_aside(path) as aside:
        aside.write_bytes(b"half")
        assert leftovers(path.parent) == [aside]
        raise ValueError("stop")
    assert (path.read_bytes(), list(path.parent.iterdir())) == (b"old", [path])


def test_a_directory_comes_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "entry"
    with pytest.raises(ValueError, match="stop"), directory_aside(path) as aside:
        (aside / "x").touch()
        assert leftovers(path.parent) == [aside] and not path.exists()
        raise ValueError("stop")
    assert list(path.parent.iterdir()) == []
    path.mkdir()  # an empty one is replaced
    with directory_aside(path) as aside:
        (aside / "x").touch()
    assert list(tmp_path.rglob("*")) == [path.parent, path, path / "x"]


def test_the_first_of_two_directories_stays(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    with pytest.raises(OSError, match="not empty"), directory_aside(path) as aside:
        (aside / "second").touch()
        path.mkdir()
        (path / "first").touch()
    assert [entry.name for entry in tmp_path.rglob("*")] == ["entry", "first"]


def test_every_file_of_a_directory_is_on_disk_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aside" / "deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        (tmp_path / "aside" / name).touch()
    calls: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: calls.append("fsync"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b))[1])
    commit(tmp_path / "aside", tmp_path / "final", fsync=True)
    assert calls == ["fsync", "fsync", "replace", "fsync"]
    assert (tmp_path / "final" / "deep" / "b").is_file()
