"""The embedded default as a user has it: ``prunus up`` in a home of its own, driven over the command line."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from prunus.configs.artifacts.layout import JobDirectory
from prunus.service.client import Client


@dataclass(frozen=True)
class UpService:
    """A server that runs.

    Attributes:
        home: Its home.
        environment: What the command line is called with.
    """

    home: Path
    environment: dict[str, str]

    def cli(self, *arguments: str, timeout_s: float = 900.0) -> subprocess.CompletedProcess[str]:
        """Call ``prunus``; its answer must never hold a traceback."""
        command = [sys.executable, "-m", "prunus.service.cli", *arguments]
        ended = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout_s, cwd=self.home, check=False
        )
        assert "Traceback" not in ended.stderr, ended.stderr
        return ended

    def answer(self, *arguments: str) -> Any:
        """Call ``prunus ... --json``, which must succeed."""
        ended = self.cli(*arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    @property
    def state(self) -> dict[str, Any]:
        """``up.json``."""
        found: dict[str, Any] = json.loads((self.home / "up.json").read_text(encoding="utf-8"))
        return found

    @property
    def client(self) -> Client:
        """The Python client."""
        return Client(self.state["server_url"])

    def job_directory(self, job_id: str) -> JobDirectory:
        """Where a job's files lie."""
        return JobDirectory(self.home / "storage" / "jobs" / job_id)

    def explain(self, job: dict[str, Any]) -> str:
        """All there is to say about a job, for a failing assertion."""
        logs = self.cli("logs", job["id"]).stdout[-3000:] + self.cli("logs", job["id"], "--rank", "0").stdout[-3000:]
        return f"{job['name']} is {job['state']}: {job['why']}\n{logs}"


def rank_process(directory: JobDirectory, attempt: int, rank: int) -> psutil.Process | None:
    """The process that writes a rank's log; None if there is none."""
    log = str(directory.rank_log(attempt, rank))
    for process in psutil.process_iter():
        try:
            if any(file.path == log for file in process.open_files()):
                return process
        except psutil.Error:
            continue
    return None


def wait_for_step(directory: JobDirectory, attempt: int, step: int, timeout_s: float = 900.0) -> None:
    """Return once rank 0 has logged this optimizer step or a later one."""
    log, deadline = directory.rank_log(attempt, 0), time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
        steps = [
            int(line.split(": step ")[1].split("/")[0])
            for line in lines
            if "jobs.training.loop: step " in line and "/" in line.split(": step ")[1].split(":")[0]
        ]
        if steps and steps[-1] >= step:
            return
        time.sleep(0.01)
    raise TimeoutError(f"no step {step} in {log} after {timeout_s} s")


def marked_processes(marker: str) -> list[str]:
    """Command lines of all processes that carry the home's marker in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PRUNUS_CLUSTER") == marker and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found
