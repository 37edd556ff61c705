"""One embedded default for all flow tests."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.flow_service import UpService, marked_processes


@pytest.fixture(scope="session")
def service(rank_environment: dict[str, str]) -> Iterator[UpService]:
    """``prunus up`` with two CPUs; ``prunus down`` at the end must leave no process."""
    home = Path(tempfile.mkdtemp(prefix="pf-"))  # short: Ray's sockets lie below it
    running = UpService(home, {**rank_environment, "PRUNUS_HOME": str(home)})
    up = subprocess.run(
        [sys.executable, "-m", "prunus.service.cli", "up", "--cpus", "2"],
        env=running.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    try:
        assert up.returncode == 0, up.stderr
        marker = running.state["marker"]
        assert len(marked_processes(marker)) > 3
        assert {part["health"] for part in running.answer("status").values()} == {"running"}
        assert running.answer("list") == []
        yield running
    finally:
        running.cli("down")
    assert marked_processes(marker) == []
    shutil.rmtree(home)
