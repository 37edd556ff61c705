"""A disk that is full when a checkpoint is due, by a small tmpfs in its place."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prunus.configs.artifacts.manifest import sha256_file
from tests.contract.gang_cases import EXAMPLES, Case, cell
from tests.contract.gang_runs import Gangs

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
CASE = Case(
    EXAMPLES["gradual_magnitude"].spec,
    num_ranks=2,
    dropout=0.1,
    train=(("num_steps", 20), ("checkpoint_every", 5), ("keep_checkpoints", 10)),
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A job directory whose ``checkpoints`` lie on a disk of their own of 1 MB."""
    place = tmp_path / "job" / "checkpoints"
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk needs the right to mount a tmpfs (root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("strategy", [cell(s, always=s == "zero2") for s in ("ddp", "zero2")])
def test_a_full_disk_ends_the_attempt_and_spoils_no_checkpoint(gangs: Gangs, small_disk: Path, strategy: str) -> None:
    case = replace(CASE, strategy=strategy)
    directory = small_disk.parent
    unbroken = gangs.run(case)
    size = sum(path.stat().st_size for path in (unbroken.directory.checkpoints / "step-5").rglob("*"))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1024 * 1024 - int(1.5 * size)))  # room for one checkpoint and a half
    full = gangs.attempt(case, directory, 1)
    assert not full.succeeded
    assert full.error.reason == "storage", full.error.message
    assert full.error.retryable
    assert "space" in full.error.message
    assert [path.name for path in sorted(small_disk.iterdir())] == ["ballast", "latest", "step-5"], "nothing lies aside"
    committed = small_disk / "step-5"
    reference = unbroken.directory.checkpoints / "step-5" / "mask.safetensors"
    assert sha256_file(committed / "mask.safetensors") == sha256_file(reference)

    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    resumed = gangs.attempt(case, directory, 2)
    assert resumed.succeeded, resumed.log[-3000:]
    assert "resumed from step-5" in resumed.log
    assert all(torch.equal(resumed.weights[name], weight) for name, weight in unbroken.weights.items())
    assert resumed.losses == unbroken.losses
