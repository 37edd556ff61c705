"""The MLflow side of references, against a client that answers as MLflow 3.17 does, and against nobody."""

from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, RESOURCE_DOES_NOT_EXIST

from prunus.service.errors import NotFound, Unreachable
from prunus.service.sources.mlflow_registry import MlflowRegistry
from prunus.service.sources.registry import RegistryEntry


class _Client:
    def __init__(self, tags: dict[str, str]) -> None:
        self.tags = tags
        self.num_experiment_calls = 0
        self.error: MlflowException | None = None

    def get_model_version_by_alias(self, name: str, alias: str) -> Any:
        if self.error is not None:
            raise self.error
        assert (name, alias) == ("sparse", "best")
        return SimpleNamespace(run_id="run-1")

    def get_run(self, run_id: str) -> Any:
        assert run_id == "run-1"
        return SimpleNamespace(data=SimpleNamespace(tags=self.tags))

    def get_experiment_by_name(self, name: str) -> Any:
        self.num_experiment_calls += 1
        if self.error is not None:
            raise self.error
        assert name == "prunus"
        return SimpleNamespace(experiment_id="7")


def make(tags: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[MlflowRegistry, _Client]:
    client = _Client(tags)
    monkeypatch.setattr("prunus.service.sources.mlflow_registry.MlflowClient", lambda **_: client)
    return MlflowRegistry("http://127.0.0.1:9", "prunus"), client


def test_an_alias_leads_to_its_run_and_by_its_tag_to_our_job(monkeypatch: pytest.MonkeyPatch) -> None:
    registry, _ = make({"prunus.job_id": "j-1"}, monkeypatch)
    assert registry.look_up("sparse", "best") == RegistryEntry("run-1", "j-1")
    registry, _ = make({}, monkeypatch)
    assert registry.look_up("sparse", "best") == RegistryEntry("run-1", None)


def test_an_unknown_alias_is_not_found_and_a_fault_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    registry, client = make({}, monkeypatch)
    client.error = MlflowException("no alias", RESOURCE_DOES_NOT_EXIST)
    with pytest.raises(NotFound, match="models:/sparse@best"):
        registry.look_up("sparse", "best")
    client.error = MlflowException("database is locked", INTERNAL_ERROR)
    with pytest.raises(Unreachable, match="database is locked"):
        registry.look_up("sparse", "best")


def test_the_address_of_a_run_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    registry, client = make({}, monkeypatch)
    expected = "http://127.0.0.1:9/#/experiments/7/runs/run-1?workflowType=machine_learning"
    assert [registry.run_url("run-1") for _ in range(3)] == [expected] * 3
    assert client.num_experiment_calls == 1


def test_an_mlflow_that_does_not_answer_is_not_asked_for_every_job(monkeypatch: pytest.MonkeyPatch) -> None:
    registry, client = make({}, monkeypatch)
    client.error = MlflowException("timed out", INTERNAL_ERROR)
    assert [registry.run_url("run-1") for _ in range(100)] == [None] * 100
    assert client.num_experiment_calls == 1


def test_nobody_at_the_address_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="does not answer"):
        MlflowRegistry("http://127.0.0.1:9", "prunus").look_up("sparse", "best")
