"""A spool left behind is complete in MLflow afterwards, with nothing twice. A real store (SQLite), no server."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from prunus.configs import JobSpec, Launch, SpoolCursor
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import JobDirectory
from prunus.jobs.tracking import mlflow_carrier
from prunus.jobs.tracking.late_publish import main, publish
from prunus.jobs.tracking.mlflow_carrier import Carrier
from prunus.jobs.tracking.tracker import Tracker, identity

FILES = {"files": ["/data/rows.csv"]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of one store for the module (making its tables takes seconds)."""
    root = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{root}/mlflow.db"
    patch = pytest.MonkeyPatch()
    patch.chdir(root)  # where a SQLite store keeps artifacts
    mlflow.MlflowClient(tracking_uri=uri).search_experiments()
    yield uri
    patch.undo()


@pytest.fixture
def nowhere() -> str:
    """Address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(autouse=True)
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_carrier, "_LONGEST_PAUSE_S", 0.2)
    monkeypatch.setattr(mlflow_carrier, "_RACE_S", 0.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kinds of the operations that are sent from now on."""
    kinds: list[str] = []
    send = Carrier._send

    def count(self: Carrier, run_id: str, group: list[dict[str, Any]]) -> None:
        kinds.extend(operation["op"] for operation in group)
        send(self, run_id, group)

    monkeypatch.setattr(Carrier, "_send", count)
    return kinds


def make_launch(root: Path, uri: str | None, experiment: str, campaign: str | None = None) -> Launch:
    spec = JobSpec.model_validate(
        {
            "name": "student",
            "task": {"name": "classification", "data": {"train": FILES, "eval": FILES}},
            "model": {"from": "org/base"},
            "train": {"num_steps": 1, "lr": {"peak": 1e-3}},
        }
    )
    return Launch(
        prunus_version="0",
        job_id=f"j-{root.name}",
        job_name="student",
        campaign_id=campaign,
        attempt=1,
        attempt_id=f"j-{root.name}-a1",
        token="1",
        job_dir=str(root),
        cache_dir=str(root),
        spec=spec,
        mlflow_uri=uri,
        mlflow_experiment=experiment,
    )


def track(launch: Launch) -> Tracker:
    directory = JobDirectory(launch.job_dir)
    return Tracker(directory.tracking, identity(launch), launch.mlflow_uri, launch.mlflow_experiment)


def cursor_of(launch: Launch) -> SpoolCursor:
    return SpoolCursor.read(JobDirectory(launch.job_dir).cursor)


def test_a_spool_left_by_an_outage_is_completed_once(
    tmp_path: Path, store: str, nowhere: str, sent: list[str], request: pytest.FixtureRequest
) -> None:
    launch = make_launch(tmp_path / "job", store, request.node.name)
    directory = JobDirectory(launch.job_dir)
    write_atomic(directory.artifacts / "model" / "config.json", "{}")
    before = track(launch)
    before.metrics(1, {"loss": 4.0})
    assert before.close(60)
    away = track(launch.model_copy(update={"mlflow_uri": nowhere}))
    away.metrics(2, {"loss": 3.0})
    away.metrics(3, {"loss": 2.0})
    away.artifacts(directory.artifacts, "")
    away.status("FINISHED")
    assert not away.close(0.2)
    assert cursor_of(launch).offset < directory.spool.stat().st_size
    sent.clear()

    assert publish(launch, wait_s=60)
    assert sent == ["metrics", "metrics", "artifacts", "status"]
    assert cursor_of(launch) == SpoolCursor(offset=directory.spool.stat().st_size, run_id=before.run_id)
    client = mlflow.MlflowClient(tracking_uri=store)
    assert before.run_id is not None
    points = client.get_metric_history(before.run_id, "loss")
    assert sorted((point.step, point.value) for point in points) == [(1, 4.0), (2, 3.0), (3, 2.0)]
    assert [file.path for file in client.list_artifacts(before.run_id, "model")] == ["model/config.json"]
    assert client.get_run(before.run_id).info.status == "FINISHED"

    sent.clear()
    assert publish(launch, wait_s=60)
    assert sent == []


def test_a_killed_job_is_killed_in_mlflow_although_its_last_line_was_cut(
    tmp_path: Path, store: str, request: pytest.FixtureRequest
) -> None:
    launch = make_launch(tmp_path / "job", store, request.node.name)
    directory = JobDirectory(launch.job_dir)
    lines = [{"op": "status", "status": "RUNNING"}, {"op": "metrics", "step": 1, "time": 0, "values": {"loss": 4.0}}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"op": "met\n'
    write_atomic(directory.spool, text + '{"op": "status", "status": "KILLED"}\n')
    path = directory.publish_launch
    write_atomic(path, launch.model_dump_json(by_alias=True))
    assert main(str(path)) == 0
    run_id = cursor_of(launch).run_id
    assert run_id is not None
    run = mlflow.MlflowClient(tracking_uri=store).get_run(run_id)
    assert run.info.status == "KILLED"
    assert run.data.metrics == {"loss": 4.0}


def test_a_spool_that_ends_in_a_cut_line_is_complete_too(
    tmp_path: Path, store: str, request: pytest.FixtureRequest
) -> None:
    launch = make_launch(tmp_path / "job", store, request.node.name)
    writer = track(launch)
    writer.metrics(1, {"loss": 4.0})
    assert writer.close(60)
    spool = JobDirectory(launch.job_dir).spool
    with spool.open("a") as file:
        file.write('{"op": "met')
    assert publish(launch, wait_s=60)
    assert cursor_of(launch) == SpoolCursor(offset=spool.stat().st_size, run_id=writer.run_id)


def test_while_mlflow_is_away_it_says_so_and_sends_nothing_later(
    tmp_path: Path, nowhere: str, request: pytest.FixtureRequest
) -> None:
    launch = make_launch(tmp_path / "job", None, request.node.name)
    writer = track(launch)
    writer.metrics(1, {"loss": 4.0})
    writer.close(0)
    assert not publish(launch, wait_s=60)  # no address at all
    assert not publish(launch.model_copy(update={"mlflow_uri": nowhere}), wait_s=0.2)
    assert cursor_of(launch) == SpoolCursor()


def test_a_job_that_logged_nothing_is_complete(tmp_path: Path) -> None:
    assert publish(make_launch(tmp_path / "job", None, "e"))
    assert not (tmp_path / "job").exists()


def test_two_jobs_that_make_their_campaigns_run_at_once_end_with_one(
    tmp_path: Path, store: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = mlflow.MlflowClient(tracking_uri=store)
    experiment_id = client.create_experiment(request.node.name)
    both = threading.Barrier(2, timeout=60)
    create = mlflow.MlflowClient.create_run

    def create_together(self: mlflow.MlflowClient, *given: Any, **named: Any) -> Any:
        if "prunus.campaign" not in named["tags"]:
            return create(self, *given, **named)
        both.wait()  # both have looked and found none
        run = create(self, *given, **named)
        both.wait()  # both runs are there
        return run

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", create_together)
    trackers = []
    for name in ("one", "two"):
        tracker = track(make_launch(tmp_path / name, store, request.node.name, campaign="c-1"))
        tracker.status("FINISHED")
        trackers.append(tracker)
    assert all(tracker.close(60) for tracker in trackers)
    parents = client.search_runs([experiment_id], "tags.`prunus.campaign` = 'c-1'")
    assert len(parents) == 1
    children = [client.get_run(str(tracker.run_id)) for tracker in trackers]
    assert [child.data.tags["mlflow.parentRunId"] for child in children] == [parents[0].info.run_id] * 2


@pytest.mark.parametrize("text", [None, "", "{", '{"offset": -1}', '{"offset": "x"}'])
def test_a_cursor_that_cannot_be_read_means_the_beginning(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "cursor.json").write_text(text)
    assert SpoolCursor.read(tmp_path / "cursor.json") == SpoolCursor(offset=0, run_id=None)
