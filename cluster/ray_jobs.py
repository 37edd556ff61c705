"""The real executor: Ray's Jobs API over HTTP, one submission per attempt, or per try
to carry a spool over. No Ray is imported, so the server needs no
particular version of it.

Sources: Ray 2.60 documentation of the Jobs REST API; its state API for nodes.
"""

import logging
import shlex
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from prunus.cluster.code_archive import code_archive
from prunus.cluster.errors import ClusterRefused, ClusterUnreachable
from prunus.cluster.executor import Capacity, Node, Poll, RayStatus
from prunus.configs import Launch
from prunus.configs.artifacts.layout import JobDirectory

log = logging.getLogger(__name__)

_STATUS: dict[str, RayStatus] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "STOPPED": "stopped",
}


class RayJobs:
    """Executor on a Ray cluster.

    Args:
        address: Dashboard's URL, ``http://host:8265``.
        token: Ray's authentication token; None where the cluster uses none.
        python: Interpreter on the cluster that has prunus installed with the extra ``train``.
        runtime_env: More of Ray's runtime environment, as it stands.
        ship_code: Upload this server's ``configs``, ``jobs`` and ``cluster`` with each attempt; off where the
            cluster's image has prunus
            of the same version (faster: a shipped package starts fresh worker processes).
        transport: How requests travel; None: over the network.
    """

    def __init__(
        self,
        address: str,
        token: str | None = None,
        python: str = "python",
        runtime_env: dict[str, Any] | None = None,
        ship_code: bool = False,
        *,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=30.0, trust_env=False, transport=transport)
        self._python, self._runtime_env, self._ship_code = python, runtime_env or {}, ship_code

    def submit(self, launch: Launch) -> None:
        """See ``Executor.submit``."""
        path = JobDirectory(launch.job_dir).launch(launch.attempt)
        # A comparison runs in the driver itself (``cluster.driver``); of a gang, the ranks hold what is asked for.
        cpus = 0 if launch.spec.needs_gang else launch.spec.resources.cpus_per_rank
        self._start(launch, launch.attempt_id, "prunus.cluster.driver", path, attempt_environment(launch), cpus)

    def publish(self, launch: Launch, submission_id: str) -> None:
        """See ``Executor.publish``."""
        path = JobDirectory(launch.job_dir).publish_launch
        # No marker of the attempt: its processes are over, and this is none of them.
        environment = {"PRUNUS_JOB": launch.job_id, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._start(launch, submission_id, "prunus.jobs.tracking.late_publish", path, environment)

    def poll(self, attempt_id: str) -> Poll:
        """See ``Executor.poll``."""
        answer = self._call("GET", f"/api/jobs/{attempt_id}")
        if answer.status_code == 404:
            return Poll("unknown")
        self._expect_ok(answer, f"asking for {attempt_id}")
        facts = answer.json()
        return Poll(_STATUS.get(facts.get("status", ""), "unknown"), str(facts.get("message") or ""))

    def stop(self, attempt_id: str) -> None:
        """See ``Executor.stop``."""
        answer = self._call("POST", f"/api/jobs/{attempt_id}/stop")
        if answer.status_code != 404:
            self._expect_ok(answer, f"stopping {attempt_id}")

    def driver_log(self, attempt_id: str) -> str:
        """See ``Executor.driver_log``."""
        answer = self._call("GET", f"/api/jobs/{attempt_id}/logs")
        if answer.status_code != 200:
            return ""
        return str(answer.json().get("logs") or "")

    def capacity(self) -> Capacity:
        """See ``Executor.capacity``."""
        answer = self._call("GET", "/api/v0/nodes", params={"limit": 10_000, "detail": 1})
        self._expect_ok(answer, "listing nodes")
        rows = answer.json()["data"]["result"]["result"]
        return Capacity(
            tuple(
                Node(
                    row["node_id"],
                    float(row["resources_total"].get("CPU", 0.0)),
                    float(row["resources_total"].get("GPU", 0.0)),
                )
                for row in rows
                if row["state"] == "ALIVE"
            )
        )

    def _start(
        self,
        launch: Launch,
        submission_id: str,
        module: str,
        path: Path,
        variables: dict[str, str],
        cpus: float = 0,
    ) -> None:
        """Submit ``python -m MODULE PATH``; with 0 CPUs it holds no place that a gang waits for."""
        environment = dict(self._runtime_env)
        environment["env_vars"] = {**variables, **environment.get("env_vars", {})}
        if self._ship_code:
            environment["py_modules"] = [*environment.get("py_modules", []), self._upload_code()]
        body = {
            "entrypoint": f"{self._python} -m {module} {shlex.quote(str(path))}",
            "submission_id": submission_id,
            "runtime_env": environment,
            "entrypoint_num_cpus": cpus,
            "metadata": {"prunus_job": launch.job_id, "prunus_name": launch.job_name},
        }
        answer = self._call("POST", "/api/jobs/", json=body)
        if answer.status_code == 500 and "already exists" in answer.text:
            log.info("%s: Ray knows this submission already; adopted", submission_id)
            return
        self._expect_ok(answer, f"submitting {submission_id}")

    def _upload_code(self) -> str:
        """Put our packages into Ray's package store under their digest; returns the URI."""
        content = code_archive()
        name = f"_ray_pkg_{sha256(content).hexdigest()[:32]}.zip"
        place = f"/api/packages/gcs/{name}"
        if self._call("GET", place).status_code == 404:
            self._expect_ok(self._call("PUT", place, content=content), "uploading prunus' code")
        return f"gcs://{name}"

    def _call(self, verb: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(verb, path, **options)
        except httpx.HTTPError as error:
            raise ClusterUnreachable(
                f"Ray at {self._http.base_url} does not answer ({type(error).__name__}: {error}); is it running?"
            ) from error

    def _expect_ok(self, answer: httpx.Response, doing: str) -> None:
        if answer.status_code in {401, 403}:
            raise ClusterRefused(f"Ray refused the token when {doing}; check the token file of the server")
        if answer.status_code >= 500:
            raise ClusterUnreachable(f"Ray answered {answer.status_code} when {doing}: {_last_line(answer.text)}")
        if answer.status_code >= 400:
            raise ClusterRefused(f"Ray answered {answer.status_code} when {doing}: {_last_line(answer.text)}")


def attempt_environment(launch: Launch) -> dict[str, str]:
    """Environment of the driver and, through Ray, of every rank; it marks all processes of the attempt."""
    resources_ = launch.spec.resources
    environment = {
        "PRUNUS_JOB": launch.job_id,
        "PRUNUS_ATTEMPT": launch.attempt_id,
        "OMP_NUM_THREADS": str(max(1, int(resources_.cpus_per_rank))),
        "TOKENIZERS_PARALLELISM": "true",  # rank 0 tokenises while the others wait
        "RAY_TRAIN_V2_ENABLED": "1",
        # Seconds until all ranks must have started: importing the stack takes long on a busy node.
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
        # An actor that imports torch, to tell ranks of a node about to go; no rank asks.
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    }
    if resources_.gpus_per_rank == 0:
        environment["DS_ACCELERATOR"] = "cpu"
    return environment


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().split("\n") if line.strip()]
    return lines[-1][:300] if lines else ""
