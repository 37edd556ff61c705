"""The server as a process, and assembled around the fake cluster with its scheduler's thread."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from prunus.cluster.fake import FakeExecutor
from prunus.service.assembly import Assembly
from prunus.service.settings import Settings
from prunus.service.sources.registry import NoRegistry
from prunus.service.store.rows import JobRow
from prunus.service.wire import JobState, Submission
from tests.service.world import make_campaign, make_spec

ROOT = Path(__file__).parents[2]
NOBODY = "http://127.0.0.1:9"


def start(home: Path, *more: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "prunus.service.server",
        "--home",
        str(home),
        "--port",
        "0",
        "--ray-address",
        NOBODY,
        *more,
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PRUNUS_")}
    return subprocess.Popen(command, cwd=ROOT, env={**kept, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True)


def lines_until(process: subprocess.Popen[str], word: str) -> str:
    """Read the log up to a line with ``word``, and return that line."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if word in line:
            return line
    raise AssertionError(f"the server ended without {word!r}:\n{''.join(seen)}")


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    server = start(tmp_path)
    yield server
    if server.poll() is None:
        server.kill()
    server.communicate(timeout=30)


def test_the_server_starts_without_ray_queues_and_ends_cleanly_on_sigterm(
    process: subprocess.Popen[str], tmp_path: Path
) -> None:
    url = lines_until(process, "Uvicorn running on").split("running on ")[1].split()[0]
    assert httpx.get(f"{url}/readyz").status_code == 200
    campaign = Submission(campaign=make_campaign(make_spec("a"))).model_dump_json(by_alias=True)
    answer = httpx.post(f"{url}/v1/campaigns", content=campaign, headers={"content-type": "application/json"})
    assert answer.json()["jobs"][0]["state"] == "QUEUED"
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=30)
    assert "scheduler: ends" in log
    assert process.returncode == 0


def test_an_assembled_server_runs_its_queue_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load({}, home=tmp_path, poll_interval_s=0.05, mlflow_uri=NOBODY)
    ended = {"a": threading.Event(), "b": threading.Event()}
    executor = FakeExecutor(automatic=True)
    with Assembly(settings, executor, NoRegistry()) as assembly:
        end_attempt = assembly.store.end_attempt

        def end_and_tell(job: JobRow, *given: Any, **named: Any) -> None:
            end_attempt(job, *given, **named)
            ended[job.name].set()

        monkeypatch.setattr(assembly.store, "end_attempt", end_and_tell)
        http = TestClient(assembly.app, base_url="http://127.0.0.1")
        assert http.get("/readyz").status_code == 200
        assert {"scheduler", "publisher"} <= {thread.name for thread in threading.enumerate()}
        campaign = Submission(campaign=make_campaign(make_spec("a"), make_spec("b", "job:a")))
        headers = {"content-type": "application/json"}
        answer = http.post("/v1/campaigns", content=campaign.model_dump_json(by_alias=True), headers=headers)
        assert answer.status_code == 200
        assert ended["a"].wait(30.0)
        assert ended["b"].wait(30.0)
        assert assembly.store.find_job("b").state is JobState.SUCCEEDED
    assert "publisher" not in {thread.name for thread in threading.enumerate()}
    Assembly(settings, executor, NoRegistry()).store.close()  # The database was given back.
