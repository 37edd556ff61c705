"""Metrics and artifacts to MLflow without ever waiting for it: rank 0 appends to a spool, a thread carries it over.

    loop -> spool.jsonl (append, flushed)
                 -> thread: read from the cursor, log_batch / log_artifact, move the cursor -> MLflow

MLflow slow or away: the spool grows, training goes on, the thread tries again with growing pauses. All attempts of a
job share one run and one spool; a point of a curve whose step the spool already has is not written again, so a resumed
job logs nothing twice.

The runs of a campaign's jobs hang under one run, which the first of them makes. The service ends it, since no job knows
whether others still wait (``service.publishing.campaign_runs``).
"""

import json
import logging
import time
from pathlib import Path
from typing import Any

from prunus.configs import Launch
from prunus.configs.artifacts.layout import SPOOL
from prunus.jobs.tracking.mlflow_carrier import Carrier, read_operations

log = logging.getLogger(__name__)


def identity(launch: Launch) -> dict[str, str]:
    """What tells a job's run from all others, as tags ``prunus.<key>``."""
    job = {"job_id": launch.job_id, "job_name": launch.job_name}
    if launch.campaign_id:
        job |= {"campaign_id": launch.campaign_id, "campaign_name": launch.campaign_name or launch.campaign_id}
    return job


class Tracker:
    """Writer of one job's run; only rank 0 makes one that writes.

    Args:
        directory: ``tracking/`` of the job.
        job: Tags that identify the run: job id and name, campaign id and name.
        uri: MLflow server; None keeps everything in the spool.
        experiment: Name of the experiment.
    """

    def __init__(self, directory: Path, job: dict[str, str], uri: str | None, experiment: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._last_steps = _last_steps(directory / SPOOL)
        self._spool = (directory / SPOOL).open("a", encoding="utf-8")
        self._carrier = Carrier(directory, job, uri, experiment) if uri else None
        if self._carrier is not None:
            self._carrier.start()

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Log one point of several curves; a curve that an earlier attempt took to this step is left as it is."""
        new = {curve: value for curve, value in values.items() if step > self._last_steps.get(curve, -1)}
        if new:
            self._append({"op": "metrics", "step": step, "time": int(time.time() * 1000), "values": new})
            self._last_steps.update(dict.fromkeys(new, step))

    def params(self, values: dict[str, Any]) -> None:
        """Log parameters (once; a repeat with equal values changes nothing)."""
        self._append({"op": "params", "values": {key: str(value)[:6000] for key, value in values.items()}})

    def tags(self, values: dict[str, str]) -> None:
        """Set tags."""
        self._append({"op": "tags", "values": values})

    def artifacts(self, path: Path, destination: str) -> None:
        """Upload a file, or all files of a directory; it must stay where it is until carried over."""
        self._append({"op": "artifacts", "path": str(path), "to": destination})

    def register(self, name: str, alias: str, artifact: str) -> None:
        """Make a registry version of an artifact directory of this run and point the alias to it."""
        self._append({"op": "register", "name": name, "alias": alias, "artifact": artifact})

    def status(self, status: str) -> None:
        """Set the run's status: RUNNING (a new attempt), FINISHED, FAILED or KILLED."""
        self._append({"op": "status", "status": status})

    def close(self, wait_s: float) -> bool:
        """Give MLflow this long to take the rest; True if it took everything."""
        self._spool.close()
        if self._carrier is None:
            return False
        return self._carrier.drain(wait_s)

    @property
    def run_id(self) -> str | None:
        """The MLflow run, once MLflow has been reached."""
        return self._carrier.run_id if self._carrier is not None else None

    def _append(self, operation: dict[str, Any]) -> None:
        self._spool.write(json.dumps(operation) + "\n")
        self._spool.flush()


def _last_steps(spool: Path) -> dict[str, int]:
    """Curve -> its largest step in the spool. A last line cut by a crash is completed with a newline and ignored."""
    if not spool.is_file():
        return {}
    text = spool.read_bytes()
    if text and not text.endswith(b"\n"):
        with spool.open("ab") as file:
            file.write(b"\n")
    steps: dict[str, int] = {}
    for operation in read_operations(text):
        if operation.get("op") == "metrics":
            for curve in operation["values"]:
                steps[curve] = max(steps.get(curve, -1), operation["step"])
    return steps
