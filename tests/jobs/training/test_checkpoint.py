"""Commits that a crash, a full disk or a damaged file cannot undo."""

import copy
import errno
import json
import logging
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunus.configs.artifacts import atomic_write
from prunus.jobs.errors import CheckpointError, StorageError
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.masked_weights import MaskedWeights
from prunus.jobs.training import checkpoint

FACTS = {"num_ranks": 1, "strategy": "ddp"}


class OneFile:
    """What a checkpoint asks of an engine: its state is one tensor in one file."""

    def __init__(self, ranks: Ranks, value: float = 1.0, numel: int = 4) -> None:
        self.ranks = ranks
        self.state = torch.full((numel,), value)

    def save(self, directory: Path) -> None:
        if self.ranks.is_main:
            torch.save(self.state, directory / "engine.pt")

    def load(self, directory: Path) -> None:
        self.state = torch.load(directory / "engine.pt", weights_only=True)


class Counting:
    """What a checkpoint asks of a method."""

    class spec:
        name = "locked"

    pattern = "given"

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "hidden": [torch.arange(3)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


@pytest.fixture
def save(tmp_path: Path, alone: Ranks) -> Callable[..., Path]:
    """Commit a checkpoint of a step into ``tmp_path / checkpoints``."""

    def act(step: int, *, root: Path = tmp_path / "checkpoints", attempt: int = 1, **changed: Any) -> Path:
        parts = {
            "attempt_id": f"j-a{attempt}",
            "engine": OneFile(alone, float(step)),
            "weights": None,
            "method": Counting(step),
            "progress": {"position": step},
            "facts": FACTS,
            "keep": 2,
        }
        return checkpoint.save(root, step, **{**parts, **changed})

    return act


def step_of_engine(directory: Path, alone: Ranks) -> float:
    engine, method = OneFile(alone), Counting()
    progress = checkpoint.load(directory, engine=engine, weights=None, method=method)
    assert method.value == progress["position"]
    return engine.state[0].item()


def test_nothing_is_found_where_nothing_was_written(tmp_path: Path) -> None:
    assert checkpoint.find(tmp_path / "checkpoints", FACTS) is None


def test_everything_comes_back(save: Callable[..., Path], tmp_path: Path, alone: Ranks, masked: Any) -> None:
    tensors = {"w": torch.arange(1.0, 7.0).view(2, 3)}
    kept = {"w": torch.tensor([[True, False, True], [False, True, False]])}
    weights: MaskedWeights = masked(tensors)[0]
    weights.set_masks(kept)
    save(7, weights=weights)
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step-7\n"
    found = checkpoint.find(tmp_path / "checkpoints", FACTS)
    assert found == (tmp_path / "checkpoints" / "step-7", 7)
    assert step_of_engine(found[0], alone) == 7.0
    fresh: MaskedWeights = masked(tensors)[0]
    checkpoint.load(found[0], engine=OneFile(alone), weights=fresh, method=Counting())
    assert torch.equal(fresh.masks["w"], kept["w"])
    assert fresh.shards[0].parameter.tolist() == [[1.0, 0.0, 3.0], [0.0, 5.0, 0.0]]


def test_masks_that_are_not_held_come_back_so_and_the_weights_as_they_were(
    save: Callable[..., Path], tmp_path: Path, alone: Ranks, masked: Any, train_step: Callable[..., None]
) -> None:
    kept = {"w": torch.tensor([[True, False, True], [False, True, False]])}
    target = [torch.full((2, 3), -2.0)]

    def adjusting() -> tuple[MaskedWeights, torch.optim.AdamW]:
        weights, optimizer = masked({"w": torch.arange(1.0, 7.0).view(2, 3)})
        train_step(weights, optimizer, target)
        weights.set_masks(kept, moments=(), hold=False)
        train_step(weights, optimizer, target)  # removed weights move, and would be lost under a held mask
        return weights, optimizer

    weights, optimizer = adjusting()
    save(7, weights=weights)
    resumed, its_optimizer = adjusting()
    resumed.set_masks({"w": ~kept["w"]}, hold=True)
    with torch.no_grad():  # what the engine restores
        resumed.shards[0].parameter.copy_(weights.shards[0].parameter)
    its_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    directory = tmp_path / "checkpoints" / "step-7"
    checkpoint.load(directory, engine=OneFile(alone), weights=resumed, method=Counting())
    assert not resumed.held
    assert torch.equal(resumed.masks["w"], kept["w"])
    for _ in range(3):
        assert torch.equal(resumed.shards[0].parameter, weights.shards[0].parameter)
        train_step(weights, optimizer, target)
        train_step(resumed, its_optimizer, target)
    assert weights.shards[0].parameter.count_nonzero() == 6


def test_a_checkpoint_from_before_masks_could_be_free_holds_them(
    save: Callable[..., Path], tmp_path: Path, alone: Ranks, masked: Any
) -> None:
    weights: MaskedWeights = masked({"w": torch.ones(2)})[0]
    weights.set_masks({"w": torch.tensor([True, False])})
    save(7, weights=weights)
    file = tmp_path / "checkpoints" / "step-7" / "rank-0.pt"
    state = torch.load(file, weights_only=True)
    torch.save({key: value for key, value in state.items() if key != "held"}, file)
    fresh: MaskedWeights = masked({"w": torch.ones(2)})[0]
    checkpoint.load(file.parent, engine=OneFile(alone), weights=fresh, method=Counting())
    assert fresh.held
    assert fresh.shards[0].parameter.tolist() == [1.0, 0.0]


def test_only_the_newest_are_kept_and_nothing_lies_aside(save: Callable[..., Path], tmp_path: Path) -> None:
    for step in (5, 10, 100, 20):
        save(step, keep=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["latest", "step-100", "step-20"]


def test_a_step_that_is_committed_is_not_written_again(save: Callable[..., Path], alone: Ranks) -> None:
    first = save(5)
    assert save(5, engine=OneFile(alone, 99.0), attempt=2) == first
    assert step_of_engine(first, alone) == 5.0


class Cut(BaseException):
    """The process is gone: nothing after this line runs."""


def steps_of_a_save(monkeypatch: pytest.MonkeyPatch, stop_at: int) -> None:
    """Let the ``stop_at``-th act on the disk be the last one that does not happen."""
    done = iter(range(1000))

    def counted(act: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if next(done) == stop_at:
                raise Cut
            return act(*args, **kwargs)

        return wrapper

    monkeypatch.setattr(OneFile, "save", counted(OneFile.save))
    monkeypatch.setattr(checkpoint.torch, "save", counted(torch.save))
    monkeypatch.setattr(checkpoint, "write_atomic", counted(checkpoint.write_atomic))
    monkeypatch.setattr(atomic_write, "sync", counted(atomic_write.sync))
    monkeypatch.setattr(checkpoint.shutil, "rmtree", counted(shutil.rmtree))
    monkeypatch.setattr(Path, "replace", counted(Path.replace))


def test_a_crash_at_any_point_leaves_the_former_checkpoint_or_the_new_one_whole(
    save: Callable[..., Path], tmp_path: Path, alone: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    for stop_at in range(100):
        root = tmp_path / str(stop_at)
        save(1, root=root, keep=1)
        with monkeypatch.context() as patch:
            steps_of_a_save(patch, stop_at)
            try:
                save(2, root=root, keep=1)
                break
            except Cut:
                pass
        found = checkpoint.find(root, FACTS)
        assert found is not None
        assert step_of_engine(found[0], alone) == found[1]
        seen.add(found[1])
        save(3, root=root, keep=1, attempt=2)  # and the next attempt goes on
        after = checkpoint.find(root, FACTS)
        assert after is not None
        assert after[1] == 3
    assert seen == {1, 2}
    assert stop_at > 8  # the loop ended with a save that was not cut


@pytest.mark.parametrize("file", ["engine.pt", "rank-0.pt", "manifest.json"])
def test_a_damaged_newest_falls_back_to_the_one_before_with_a_warning(
    save: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    save(1)
    newest = save(2)
    content = bytearray((newest / file).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (newest / file).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert checkpoint.find(tmp_path / "checkpoints", FACTS) == (tmp_path / "checkpoints" / "step-1", 1)
    assert "checkpoint step-2 is passed over" in caplog.text


def test_a_damaged_checkpoint_is_written_anew_when_its_step_comes_again(
    save: Callable[..., Path], tmp_path: Path
) -> None:
    newest = save(2)
    (newest / "engine.pt").unlink()
    save(2, attempt=2)
    assert checkpoint.find(tmp_path / "checkpoints", FACTS) == (newest, 2)


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"files": []}', '{"files": {"engine.pt": {}}}'])
def test_where_none_is_whole_a_person_must_look(save: Callable[..., Path], tmp_path: Path, manifest: str) -> None:
    (save(1) / "manifest.json").write_text(manifest)
    with pytest.raises(CheckpointError, match=r"no checkpoint is whole: .*step-1.*To start from step 0, remove"):
        checkpoint.find(tmp_path / "checkpoints", FACTS)


def test_a_checkpoint_of_another_gang_is_refused(save: Callable[..., Path], tmp_path: Path) -> None:
    save(1)
    with pytest.raises(CheckpointError, match="was written with num_ranks = 1, this job has 2; resume with the same"):
        checkpoint.find(tmp_path / "checkpoints", {**FACTS, "num_ranks": 2})


def test_a_cut_attempts_leavings_are_not_taken_for_a_checkpoint(save: Callable[..., Path], tmp_path: Path) -> None:
    save(1)
    shutil.copytree(tmp_path / "checkpoints" / "step-1", tmp_path / "checkpoints" / "step-9.j-a1.tmp")
    assert checkpoint.find(tmp_path / "checkpoints", FACTS) == (tmp_path / "checkpoints" / "step-1", 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("num_bytes", [150_000, 252_000, 400_000])
def test_a_full_disk_leaves_the_former_checkpoint(
    save: Callable[..., Path], alone: Ranks, small_disk: Path, num_bytes: int
) -> None:
    root = small_disk / "checkpoints"
    save(1, root=root, engine=OneFile(alone, 1.0, numel=30_000))
    with pytest.raises(StorageError, match=r"rank 0 could not write .*The last committed checkpoint is whole"):
        save(2, root=root, engine=OneFile(alone, 2.0, numel=num_bytes // 4))
    assert checkpoint.find(root, FACTS) == (root / "step-1", 1)
    assert not list(root.glob("*.tmp"))
    assert StorageError.retryable


@pytest.mark.parametrize("numel", [1_900_000, 2_000_000, 2_080_000])
def test_a_disk_that_is_full_when_the_mask_is_written_is_a_storage_error_too(
    save: Callable[..., Path], masked: Any, small_disk: Path, numel: int
) -> None:
    weights: MaskedWeights = masked({"w": torch.ones(numel)})[0]  # its mask takes numel / 8 bytes
    with pytest.raises(StorageError):
        save(2, root=small_disk / "checkpoints", weights=weights)


def test_the_error_of_one_rank_stops_all_and_says_what_to_do(
    tmp_path: Path, gang: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = torch.save

    def full_on_rank_1(value: Any, path: Path) -> None:
        if path.name == "rank-1.pt":
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(value, path)

    monkeypatch.setattr(checkpoint.torch, "save", full_on_rank_1)

    def act(ranks: Ranks) -> str:
        with pytest.raises(StorageError) as raised:
            checkpoint.save(
                tmp_path / "c", 1, attempt_id="j-a1", engine=OneFile(ranks), weights=None, method=Counting(),
                progress={}, facts={}, keep=1,
            )  # fmt: skip
        return str(raised.value)

    messages = gang(2, act)
    assert messages[0] == messages[1]
    assert "rank 1 could not write" in messages[0]
    assert "the disk is full; free space and submit again" in messages[0]
    assert checkpoint.find(tmp_path / "c", {}) is None


def test_every_rank_gets_its_own_state_back(tmp_path: Path, gang: Callable[..., list[Any]]) -> None:
    def act(ranks: Ranks) -> int:
        parts = {"engine": OneFile(ranks), "weights": None}
        progress = {"position": ranks.rank}
        directory = checkpoint.save(
            tmp_path / "c",
            3,
            attempt_id="j-a1",
            method=Counting(ranks.rank + 10),
            progress=progress,
            facts=FACTS,
            keep=1,
            **parts,
        )
        method = Counting()
        assert checkpoint.load(directory, method=method, **parts) == progress
        return method.value

    assert gang(3, act) == [10, 11, 12]
    manifest = json.loads((tmp_path / "c" / "step-3" / "manifest.json").read_text())
    assert sorted(manifest["files"]) == ["engine.pt", "rank-0.pt", "rank-1.pt", "rank-2.pt"]


def test_random_numbers_go_on_where_they_stood(tmp_path: Path) -> None:
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    random.gauss(0, 1)  # leaves a second number waiting
    np.random.normal()
    state = checkpoint.random_state()

    def draw() -> list[float]:
        return [
            random.random(),
            random.gauss(0, 1),
            np.random.normal(),
            float(np.random.randint(1000)),
            torch.rand(1).item(),
        ]

    expected = draw()
    torch.save(state, tmp_path / "state.pt")
    draw()
    checkpoint.set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draw() == expected
