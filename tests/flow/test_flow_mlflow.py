"""MLflow away at the start, and away in the middle: training ends well, and MLflow has every point once afterwards."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import mlflow
import psutil
import pytest

from prunus.configs.artifacts.layout import JobDirectory
from tests.contract.gang_cases import EXAMPLES, Case
from tests.contract.gang_runs import GangRun, Gangs
from tests.flow.flow_service import wait_for_step

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
NUM_STEPS = 300
LONG = Case(
    EXAMPLES["gradual_magnitude"].spec,
    train=(("num_steps", NUM_STEPS), ("batch_size", 2)),
)


@dataclass
class Tracking:
    """A real MLflow server that can be killed and comes back at the same address with the same database."""

    root: Path
    environment: dict[str, str]
    port: int = field(default=0)
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", f"--backend-store-uri=sqlite:///{self.root}/db"]
        command += ["--serve-artifacts", f"--artifacts-destination={self.root}/artifacts", "--host=127.0.0.1"]
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, f"--port={self.port}", "--workers=1"],
                env={**self.environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.root / "log").read_text()[-2000:]
            try:
                if httpx.get(f"{self.uri}/health", trust_env=False, timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise TimeoutError("MLflow does not answer")

    def kill(self) -> None:
        """SIGKILL it and its worker."""
        if self.process is not None:
            family = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
            for process in family:
                process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory, rank_environment: dict[str, str]) -> Iterator[Tracking]:
    """Not started yet: its port is closed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = Tracking(tmp_path_factory.mktemp("tracking"), rank_environment, port)
    yield found
    found.kill()


def assert_complete(tracking: Tracking, run: GangRun, job_name: str) -> None:
    """One run, finished, with each step of each curve once, and the artifacts."""
    client = mlflow.MlflowClient(tracking_uri=tracking.uri)
    experiment = client.get_experiment_by_name("prunus")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id], f"tags.`prunus.job_id` = '{job_name}'")
    assert found.info.status == "FINISHED"
    history = client.get_metric_history(found.info.run_id, "loss/task")
    assert sorted(point.step for point in history) == list(range(1, NUM_STEPS + 1))
    assert {point.step: point.value for point in history} == pytest.approx(run.losses)
    assert found.data.params["num_steps"] == str(NUM_STEPS)
    files = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert {"model", "masks", "manifest.json"} <= files


def test_mlflow_that_is_away_at_the_start_gets_everything_later(
    gangs: Gangs, tracking: Tracking, rank_environment: dict[str, str]
) -> None:
    case, directory = replace(LONG, mlflow_uri=tracking.uri, job="early"), gangs.new_directory()
    began = time.monotonic()
    run = gangs.attempt(case, directory, publish_wait_s=2.0)
    assert run.succeeded, run.log[-3000:]
    assert time.monotonic() - began < 200
    assert "MLflow" in run.log, "the log says that MLflow is away"
    assert (directory / "artifacts" / "manifest.json").is_file()
    assert sorted(run.losses) == list(range(1, NUM_STEPS + 1))
    tracking.start()
    command = [sys.executable, "-m", "prunus.jobs.tracking.late_publish", str(JobDirectory(directory).launch(1))]
    for _ in range(2):  # the second time there is nothing left to carry, and nothing is doubled
        ended = subprocess.run(command, env=rank_environment, capture_output=True, text=True, check=False, timeout=900)
        assert ended.returncode == 0, ended.stderr[-3000:]
        assert_complete(tracking, run, "early")


def test_mlflow_that_dies_in_the_middle_and_returns_gets_every_point_once(gangs: Gangs, tracking: Tracking) -> None:
    if tracking.process is None:
        tracking.start()
    case, directory = replace(LONG, mlflow_uri=tracking.uri, job="middle"), gangs.new_directory()
    ended: list[GangRun] = []
    training = threading.Thread(target=lambda: ended.append(gangs.attempt(case, directory, publish_wait_s=240.0)))
    training.start()
    wait_for_step(JobDirectory(directory), 1, 40)
    tracking.kill()
    wait_for_step(JobDirectory(directory), 1, NUM_STEPS)  # the loop goes on to its end without MLflow
    tracking.start()
    training.join(900)
    (run,) = ended
    assert run.succeeded, run.log[-3000:]
    assert_complete(tracking, run, "middle")


def test_an_address_that_never_answers_costs_no_step(gangs: Gangs) -> None:
    """A socket that accepts and stays silent is worse than a closed port: requests hang until their time is up."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        run = gangs.attempt(replace(LONG, mlflow_uri=uri, job="silent"), gangs.new_directory(), publish_wait_s=1.0)
        took = time.monotonic() - began
    assert run.succeeded, run.log[-3000:]
    assert sorted(run.losses) == list(range(1, NUM_STEPS + 1))
    assert took < 200, f"{took:.0f} s; load {os.getloadavg()}"
