"""Carries the spool to MLflow: a thread of rank 0, or of ``late_publish``."""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from prunus.configs import SpoolCursor
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import CURSOR, SPOOL

log = logging.getLogger(__name__)

_BATCH = 500

_LONGEST_PAUSE_S = 30.0

_PARENT_KEY = "prunus.campaign"
"""Tag of a campaign's run with the campaign's id."""

_PARENT_TAG = "mlflow.parentRunId"
"""MLflow's own tag, by which its pages nest the runs of a campaign."""

_RACE_S = 1.0
"""Seconds in which two jobs of a campaign that both make its run come to see each other's."""


def read_operations(text: bytes) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


class Carrier(threading.Thread):
    """Reads the spool from the cursor on and sends it to MLflow; owns the only connection."""

    def __init__(self, directory: Path, job: dict[str, str], uri: str, experiment: str) -> None:
        super().__init__(name="mlflow-carrier", daemon=True)
        # A dead server must cost seconds, not MLflow's default of minutes of retries inside one call.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        self._directory, self._job, self._experiment = directory, job, experiment
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        self._uri = uri
        state = SpoolCursor.read(directory / CURSOR)
        self._offset, self.run_id = state.offset, state.run_id
        self._closing = threading.Event()
        self._done = threading.Event()

    def run(self) -> None:
        """Carry until closed and empty."""
        pause_s = 0.5
        while not self._done.is_set():
            closing = self._closing.is_set()  # asked first: what was written before the end was called is carried over
            try:
                moved = self._carry_some()
                pause_s = 0.5
                if not moved and closing:
                    self._done.set()
            except Exception as error:  # the edge of a thread: whatever it is, training goes on and the spool keeps all
                log.warning(
                    "MLflow at %s does not take the spool (%s); again in %.0f s", self._uri, _short(error), pause_s
                )
                moved = False
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
            if not moved:
                (self._done if closing else self._closing).wait(min(pause_s, 2.0) if closing else pause_s)

    def drain(self, wait_s: float) -> bool:
        """Wait until everything is carried over; False when the time is up."""
        self._closing.set()
        drained = self._done.wait(wait_s)
        self._done.set()  # given up: nothing more is sent after this call
        return drained

    def _carry_some(self) -> bool:
        """Send the next operations of one kind; True if there were any."""
        group, end = self._next_group()
        if end == self._offset:
            return False
        if group:  # else only lines that a crash cut short
            self._send_to_run(group)
        self._offset = end
        write_atomic(self._directory / CURSOR, SpoolCursor(offset=end, run_id=self.run_id).model_dump_json())
        return True

    def _send_to_run(self, group: list[dict[str, Any]]) -> None:
        if self.run_id is None:
            self.run_id = self._find_or_create_run()
        try:
            self._send(self.run_id, group)
        except MlflowException as error:
            if self._is_gone(self.run_id):
                # Another database, or a run deleted for good: all is sent again, to a new run.
                self.run_id, self._offset = None, 0
                raise
            if not _is_refusal(error):
                raise
            # Sending it again would change nothing and hold up all that follows.
            log.error("MLflow refuses %s for good: %s; it is left out", group[0]["op"], _short(error))

    def _is_gone(self, run_id: str) -> bool:
        try:
            self._client.get_run(run_id)
        except MlflowException as error:
            return bool(error.error_code == "RESOURCE_DOES_NOT_EXIST")
        return False

    def _next_group(self) -> tuple[list[dict[str, Any]], int]:
        group: list[dict[str, Any]] = []
        end = self._offset
        with (self._directory / SPOOL).open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                parsed = next(read_operations(line), None)
                joins = parsed is None or not group or (parsed["op"] == "metrics" == group[0]["op"])
                if not joins or len(group) >= _BATCH:
                    break
                end += len(line)
                if parsed is not None:
                    group.append(parsed)
        return group, end

    def _send(self, run_id: str, group: list[dict[str, Any]]) -> None:
        operation = group[0]
        match operation["op"]:
            case "metrics":
                points = [Metric(k, v, op["time"], op["step"]) for op in group for k, v in op["values"].items()]
                for begin in range(0, len(points), 1000):
                    self._client.log_batch(run_id, metrics=points[begin : begin + 1000])
            case "params":
                items = [Param(key, value) for key, value in operation["values"].items()]
                for begin in range(0, len(items), 100):
                    self._log_params(run_id, items[begin : begin + 100])
            case "tags":
                self._client.log_batch(run_id, tags=[RunTag(k, v) for k, v in operation["values"].items()])
            case "artifacts":
                self._upload(run_id, Path(operation["path"]), operation["to"])
            case "register":
                self._register(run_id, operation["name"], operation["alias"], operation["artifact"])
            case "status":
                self._set_status(run_id, operation["status"])

    def _set_status(self, run_id: str, status: str) -> None:
        if status == "RUNNING":
            self._client.update_run(run_id, status=status)
        else:
            self._client.set_terminated(run_id, status)

    def _log_params(self, run_id: str, params: list[Param]) -> None:
        try:
            self._client.log_batch(run_id, params=params)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            log.warning("MLflow keeps the parameters of the first attempt: %s", _short(error))

    def _upload(self, run_id: str, path: Path, destination: str) -> None:
        if path.is_dir():
            self._client.log_artifacts(run_id, str(path), destination or None)
        elif path.is_file():
            self._client.log_artifact(run_id, str(path), destination or None)
        else:
            log.warning("artifact %s is gone and was not uploaded", path)

    def _register(self, run_id: str, name: str, alias: str, artifact: str) -> None:
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{self._client.get_run(run_id).info.artifact_uri}/{artifact}"
        known = [v for v in self._client.search_model_versions(f"name = '{name}'") if v.run_id == run_id]
        tags = {f"prunus.{key}": value for key, value in self._job.items()}
        version = known[0] if known else self._client.create_model_version(name, source, run_id, tags=tags)
        self._client.set_registered_model_alias(name, alias, version.version)

    def _find_or_create_run(self) -> str:
        experiment = self._client.get_experiment_by_name(self._experiment)
        experiment_id = experiment.experiment_id if experiment else self._create_experiment()
        tags = {f"prunus.{key}": value for key, value in self._job.items()}
        if "campaign_id" in self._job:
            tags[_PARENT_TAG] = self._one_run(
                experiment_id,
                _PARENT_KEY,
                self._job["campaign_id"],
                self._job.get("campaign_name", self._job["campaign_id"]),
                {},
            )
        return self._one_run(experiment_id, "prunus.job_id", self._job["job_id"], self._job["job_name"], tags)

    def _create_experiment(self) -> str:
        try:
            return str(self._client.create_experiment(self._experiment))
        except MlflowException:
            found = self._client.get_experiment_by_name(self._experiment)
            if found is None:
                raise
            return str(found.experiment_id)

    def _one_run(self, experiment_id: str, key: str, value: str, name: str, tags: dict[str, str]) -> str:
        """Find the run with this tag or create it. Two jobs of a campaign may create its parent at once: the oldest
        one stays, and who made another takes it back.
        """
        oldest = self._oldest_run(experiment_id, key, value)
        if oldest is not None:
            return oldest
        ours = str(self._client.create_run(experiment_id, run_name=name, tags={**tags, key: value}).info.run_id)
        if key == _PARENT_KEY:
            # Both must see both: an older run may be on its way into MLflow while we look. Only this thread waits.
            time.sleep(_RACE_S)
        oldest = self._oldest_run(experiment_id, key, value) or ours
        if oldest != ours:
            self._client.delete_run(ours)
            log.info("run %s was made by another job meanwhile; ours, %s, is taken back", oldest, ours)
        return oldest

    def _oldest_run(self, experiment_id: str, key: str, value: str) -> str | None:
        # The id decides between two of the same millisecond, so that all choose the same one.
        order = ["attributes.start_time ASC", "attributes.run_id ASC"]
        found = self._client.search_runs([experiment_id], f"tags.`{key}` = '{value}'", max_results=1, order_by=order)
        return str(found[0].info.run_id) if found else None


def _is_refusal(error: MlflowException) -> bool:
    """MLflow understood and said no (as against: away, overloaded, not logged in)."""
    return error.error_code in {
        "INVALID_PARAMETER_VALUE",
        "BAD_REQUEST",
        "RESOURCE_ALREADY_EXISTS",
        "INVALID_STATE",
        "RESOURCE_DOES_NOT_EXIST",  # of something else: the own run is looked at first
    }


def _short(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]
