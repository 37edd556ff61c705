"""The driver as a process: without Ray, and told to stop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prunus.cluster import driver, gang
from prunus.configs import ComparisonSpec, Outcome, StopReason, __version__
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import JobDirectory
from tests.cluster.launches import launch_of


def comparison_of(root: Path) -> Path:
    """The launch of a comparison, where the driver looks for it."""
    spec = ComparisonSpec.model_validate({"name": "c", "compare": {"jobs": ["a", "b"]}})
    launch = launch_of(root, 1).model_copy(update={"spec": spec, "prunus_version": __version__})
    path = JobDirectory(root).launch(1)
    write_atomic(path, launch.model_dump_json(by_alias=True))
    return path


def outcome_of(root: Path) -> Outcome:
    return Outcome.model_validate_json(JobDirectory(root).outcome(1).read_text())


def test_ray_that_cannot_be_joined_is_a_failed_launch_and_no_lost_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = JobDirectory(tmp_path).launch(1)
    launch = launch_of(tmp_path, 1).model_copy(update={"prunus_version": __version__})
    write_atomic(path, launch.model_dump_json(by_alias=True))

    def refuse() -> None:
        raise ConnectionError("no head at this address")

    monkeypatch.setattr(gang, "connect", refuse)
    assert driver.main(str(path)) == 1
    outcome = outcome_of(tmp_path)
    assert outcome.reason is StopReason.LAUNCH_FAILED
    assert outcome.message.startswith("Ray could not be joined (ConnectionError: no head at this address); check that")


IN_THE_DRIVER = """
import os, sys, time
from pathlib import Path
from prunus.cluster import driver

def run_rank(config):
    heavy = [name for name in ("ray", "torch") if name in sys.modules]
    Path(config["launch"] + ".seen").write_text(f"{heavy} {os.nice(0)}")
    time.sleep(60)

driver.run_rank = run_rank
driver.enter()
"""
"""The driver with a rank that says what it finds, and waits."""


def test_a_comparison_runs_in_the_driver_without_ray_and_its_stop_leaves_an_outcome(tmp_path: Path) -> None:
    path = comparison_of(tmp_path)
    seen = Path(f"{path}.seen")
    with subprocess.Popen([sys.executable, "-c", IN_THE_DRIVER, path]) as process:
        while not (seen.is_file() and seen.read_text()):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1
    assert seen.read_text() == f"[] {min(19, os.nice(0) + 15)}"
    outcome = outcome_of(tmp_path)
    assert (outcome.reason, outcome.message) == (StopReason.CANCELLED, "the driver was told to stop")
