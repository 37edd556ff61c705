"""The MLflow side: alias -> run -> our job, and the end of a campaign's run. The only module here that imports MLflow.

Every call is bounded to seconds: the scheduler asks, and must not hang on a registry that is slow or away.
"""

import logging
import os
import time

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from prunus.service.errors import NotFound, Unreachable
from prunus.service.sources.registry import RegistryEntry

log = logging.getLogger(__name__)

JOB_TAG = "prunus.job_id"
"""Tag of a run with the id of our job."""
_PARENT_TAG = "mlflow.parentRunId"
"""MLflow's own tag, by which its pages nest the runs of a campaign."""
_GONE = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE"}
"""Error codes of what is not there, or was deleted."""
_ASK_AGAIN_S = 30.0


class MlflowRegistry:
    """Looks names up in one MLflow server.

    Args:
        uri: Tracking and registry server.
        experiment: Where our runs are.
        web_url: Address for browsers; None: ``uri``.
    """

    def __init__(self, uri: str, experiment: str, web_url: str | None = None) -> None:
        # MLflow reads these at every request; its own defaults wait for many minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._uri = uri
        self._web_url = (web_url or uri).rstrip("/")
        self._experiment = experiment
        self._experiment_id: str | None = None
        self._ask_at = 0.0

    def look_up(self, name: str, alias: str) -> RegistryEntry:
        """Follow an alias to its run and, by the run's tag, to our job.

        Raises:
            NotFound: No such model or alias.
            Unreachable: MLflow does not answer.
        """
        try:
            version = self._client.get_model_version_by_alias(name, alias)
            run = self._client.get_run(version.run_id)
        except MlflowException as error:
            if error.error_code in _GONE:
                raise NotFound(
                    f"the registry has no models:/{name}@{alias}; see the Models page of {self._web_url}"
                ) from error
            raise self._unreachable(error) from error
        return RegistryEntry(run_id=version.run_id, job_id=run.data.tags.get(JOB_TAG))

    def end_parent(self, run_id: str, status: str) -> bool:
        """End the run that a job's run hangs under.

        Args:
            run_id: The job's run.
            status: FINISHED, FAILED or KILLED.

        Returns:
            False: MLflow has no such run, or it hangs under none.

        Raises:
            Unreachable: MLflow does not answer.
        """
        try:
            parent = self._client.get_run(run_id).data.tags.get(_PARENT_TAG)
            if parent is not None:
                self._client.set_terminated(parent, status)
        except MlflowException as error:
            if error.error_code in _GONE:
                return False
            raise self._unreachable(error) from error
        return parent is not None

    def run_url(self, run_id: str) -> str | None:
        """Address of a run's page; None until the experiment's id is known."""
        if self._experiment_id is None and time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + _ASK_AGAIN_S
            try:
                experiment = self._client.get_experiment_by_name(self._experiment)
                self._experiment_id = experiment.experiment_id if experiment else None
            except MlflowException as error:
                log.info("the addresses of runs are unknown, MLflow does not answer: %s", str(error)[:200])
        if self._experiment_id is None:
            return None
        # Without the workflow type, MLflow 3 opens its pages for language model applications, which hide the curves.
        place = f"{self._experiment_id}/runs/{run_id}?workflowType=machine_learning"
        return f"{self._web_url}/#/experiments/{place}"

    def _unreachable(self, error: MlflowException) -> Unreachable:
        return Unreachable(f"MLflow at {self._uri} does not answer: {str(error)[:200]}; is it running?")
