"""Two Ray nodes on one machine: ranks on both, a killed rank, resume and artifacts over the storage that they share."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from prunus.configs import Outcome
from prunus.configs.artifacts.layout import JobDirectory
from tests.contract.gang_cases import EXAMPLES, Case
from tests.contract.gang_runs import GangRun, Gangs
from tests.flow.flow_service import rank_process, wait_for_step
from tests.tiny_inputs import TinyInputs

pytestmark = [pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(1800)]
CASE = Case(
    EXAMPLES["gradual_magnitude"].spec,
    num_ranks=2,
    dropout=0.1,
    placement="spread",
    train=(("num_steps", 200), ("checkpoint_every", 20)),
)
KILL_AFTER = 30


@pytest.fixture(scope="module")
def two_nodes(rank_environment: dict[str, str]) -> Iterator[Any]:
    """A head and a second node, one CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in rank_environment.items():
            patch.setenv(name, value)
        for name, value in {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        sizes = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 * 1024**2}
        cluster = Cluster(initialize_head=True, connect=False, head_node_args={**sizes, "include_dashboard": False})
        cluster.add_node(**sizes)
        cluster.wait_for_nodes(timeout=120)
        yield cluster
        cluster.shutdown()


def raylets(cluster: Any) -> set[int]:
    """Process ids of the nodes' raylets."""
    return {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}


def run_driver(cluster: Any, launch: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Do what Ray Jobs does with an attempt: run the driver, connected to the cluster."""
    extra = {
        "RAY_ADDRESS": cluster.address,
        "RAY_AUTH_MODE": "disabled",
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    }
    command = [sys.executable, "-m", "prunus.cluster.driver", str(launch)]
    return subprocess.run(
        command, env={**environment, **extra}, capture_output=True, text=True, check=False, timeout=900
    )


def node_of(process: psutil.Process, nodes: set[int]) -> int:
    """The raylet that a rank's process descends from."""
    (found,) = {parent.pid for parent in process.parents()} & nodes
    return found


def outcome(directory: JobDirectory, attempt: int) -> Outcome:
    return Outcome.model_validate_json(directory.outcome(attempt).read_text(encoding="utf-8"))


def test_a_gang_over_two_nodes_is_killed_resumes_and_equals_one_without_ray(
    two_nodes: Any, gangs: Gangs, tiny: TinyInputs, rank_environment: dict[str, str], tmp_path: Path
) -> None:
    directory = JobDirectory(tmp_path / "job")
    for attempt in (1, 2):
        directory.attempt(attempt).mkdir(parents=True)
        launch = CASE.launch(tiny, directory.root, tmp_path / "cache", attempt)
        directory.launch(attempt).write_text(launch.model_dump_json(by_alias=True), encoding="utf-8")
    drivers: list[subprocess.CompletedProcess[str]] = []
    first = threading.Thread(
        target=lambda: drivers.append(run_driver(two_nodes, directory.launch(1), rank_environment))
    )
    first.start()
    wait_for_step(directory, 1, KILL_AFTER)
    ranks = [rank_process(directory, 1, rank) for rank in (0, 1)]
    assert ranks[0] is not None and ranks[1] is not None
    assert {node_of(process, raylets(two_nodes)) for process in ranks if process} == raylets(two_nodes)
    os.kill(ranks[1].pid, signal.SIGKILL)
    first.join(900)
    assert drivers[0].returncode == 1, drivers[0].stderr[-3000:]
    lost = outcome(directory, 1)
    assert lost.reason == "worker_lost", lost.message
    assert lost.failed_rank == 1
    assert lost.message.startswith("rank 1 died without a word")
    assert rank_process(directory, 1, 0) is None

    second = run_driver(two_nodes, directory.launch(2), rank_environment)
    assert second.returncode == 0, second.stderr[-4000:]
    ended = outcome(directory, 2)
    assert ended.reason == "succeeded"
    assert ended.metrics["sparsity/prunable"] == pytest.approx(0.9, abs=1 / 576)
    run = GangRun(directory, 2, [0, 0])
    assert "resumed from step-" in run.log
    alone = gangs.run(CASE)  # the same job, unbroken, without Ray
    assert run.losses == alone.losses
    assert all(torch.equal(run.weights[name], weight) for name, weight in alone.weights.items())

    third = run_driver(two_nodes, directory.launch(2), rank_environment)  # Ray may start a driver twice
    assert third.returncode == 0
    assert outcome(directory, 2) == ended
