"""The spool against a real MLflow store (SQLite in a file, no server): nothing lost, nothing twice, never waiting."""

import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from prunus.configs import SpoolCursor
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import CURSOR, SPOOL
from prunus.jobs.tracking import mlflow_carrier
from prunus.jobs.tracking.mlflow_carrier import Carrier
from prunus.jobs.tracking.tracker import Tracker

JOB = {"job_id": "j1", "job_name": "student"}


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
def experiment(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


@pytest.fixture
def nowhere() -> str:
    """Address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(autouse=True)
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_carrier, "_LONGEST_PAUSE_S", 0.2)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def track(directory: Path, uri: str | None, experiment: str, job: dict[str, str] = JOB) -> Tracker:
    return Tracker(directory, job, uri, experiment)


def curve(uri: str, run_id: str | None, name: str) -> list[tuple[int, float]]:
    assert run_id is not None
    points = mlflow.MlflowClient(tracking_uri=uri).get_metric_history(run_id, name)
    return sorted((point.step, point.value) for point in points)


def test_a_job_leaves_curves_parameters_tags_artifacts_and_a_status(
    tmp_path: Path, store: str, experiment: str
) -> None:
    model = tmp_path / "artifacts" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    tracker = track(tmp_path, store, experiment)
    tracker.params({"train.lr.peak": 0.1, "method.name": "locked"})
    tracker.tags({"label.owner": "me"})
    for step in (10, 20):
        tracker.metrics(step, {"loss/task": 1 / step, "lr": 0.5})
        tracker.metrics(step, {"eval/loss": 2.0})
    tracker.artifacts(tmp_path / "artifacts", "")
    tracker.status("FINISHED")
    assert tracker.close(wait_s=60)
    run = mlflow.MlflowClient(tracking_uri=store).get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "student"
    assert run.data.params == {"train.lr.peak": "0.1", "method.name": "locked"}
    expected = {"prunus.job_id": "j1", "prunus.job_name": "student", "label.owner": "me"}
    assert expected.items() <= run.data.tags.items()
    assert curve(store, tracker.run_id, "loss/task") == [(10, 0.1), (20, 0.05)]
    assert curve(store, tracker.run_id, "eval/loss") == [(10, 2.0), (20, 2.0)]
    files = mlflow.MlflowClient(tracking_uri=store).list_artifacts(run.info.run_id, "model")
    assert [file.path for file in files] == ["model/config.json"]


def test_a_resumed_job_goes_on_in_its_run_and_logs_no_point_twice(tmp_path: Path, store: str, experiment: str) -> None:
    first = track(tmp_path, store, experiment)
    for step in (1, 2, 3):
        first.metrics(step, {"loss": float(step)})
    assert first.close(60)
    second = track(tmp_path, store, experiment)  # from a checkpoint after step 1
    for step in (2, 3, 4):
        second.metrics(step, {"loss": 10.0 + step})
    assert second.close(60)
    assert second.run_id == first.run_id
    assert curve(store, second.run_id, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 14.0)]


def test_a_curve_that_the_first_attempt_did_not_reach_at_its_last_step_is_logged_by_the_second(tmp_path: Path) -> None:
    first = track(tmp_path, None, "e")
    first.metrics(3, {"loss": 1.0})  # and killed before the evaluation of step 3
    first.close(0)
    second = track(tmp_path, None, "e")
    second.metrics(3, {"loss": 1.0})
    second.metrics(3, {"eval/loss": 5.0})
    second.close(0)
    written = [json.loads(line)["values"] for line in (tmp_path / SPOOL).read_text().splitlines()]
    assert written == [{"loss": 1.0}, {"eval/loss": 5.0}]


def test_a_line_cut_by_a_crash_is_passed_over(tmp_path: Path, store: str, experiment: str) -> None:
    first = track(tmp_path, store, experiment)
    first.metrics(1, {"loss": 1.0})
    assert first.close(60)
    with (tmp_path / SPOOL).open("a") as spool:
        spool.write('{"op": "metrics", "step": 2, "ti')
    second = track(tmp_path, store, experiment)
    for step in (2, 3):
        second.metrics(step, {"loss": float(step)})
    assert second.close(60)
    assert curve(store, second.run_id, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_while_mlflow_is_away_training_goes_on_and_a_later_carrier_brings_everything(
    tmp_path: Path, store: str, experiment: str, nowhere: str
) -> None:
    away = track(tmp_path, nowhere, experiment)
    began = time.monotonic()
    for step in range(1, 501):
        away.metrics(step, {"loss": float(step), "lr": 0.1})
    away.status("FINISHED")
    assert time.monotonic() - began < 5.0
    assert not away.close(wait_s=0.2)
    assert away.run_id is None
    assert not (tmp_path / CURSOR).exists()
    later = Carrier(tmp_path, JOB, store, experiment)
    later.start()
    assert later.drain(60)
    assert curve(store, later.run_id, "loss") == [(step, float(step)) for step in range(1, 501)]


def test_a_carrier_cut_between_two_sends_sends_the_rest_only(
    tmp_path: Path, store: str, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_carrier, "_BATCH", 2)
    writer = track(tmp_path, None, experiment)
    for step in range(1, 8):
        writer.metrics(step, {"loss": float(step)})
    writer.close(0)
    cut = Carrier(tmp_path, JOB, store, experiment)
    assert cut._carry_some()  # one group of two points, then the process is gone
    again = Carrier(tmp_path, JOB, store, experiment)
    assert again.run_id == cut.run_id
    again.start()
    assert again.drain(60)
    assert curve(store, again.run_id, "loss") == [(step, float(step)) for step in range(1, 8)]


def test_an_mlflow_that_forgot_the_run_gets_everything_again(tmp_path: Path, store: str, experiment: str) -> None:
    tracker = track(tmp_path, store, experiment)
    tracker.metrics(1, {"loss": 1.0})
    assert tracker.close(60)
    cursor = SpoolCursor.read(tmp_path / CURSOR)
    write_atomic(
        tmp_path / CURSOR, SpoolCursor(offset=cursor.offset, run_id="f" * 32).model_dump_json()
    )  # a new database
    again = track(tmp_path, store, f"{experiment}-2")
    again.metrics(2, {"loss": 2.0})
    assert again.close(60)
    assert again.run_id not in {tracker.run_id, "f" * 32}
    assert curve(store, again.run_id, "loss") == [(1, 1.0), (2, 2.0)]


def test_a_refusal_by_an_mlflow_that_forgot_the_run_loses_nothing(
    tmp_path: Path, store: str, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = track(tmp_path, store, experiment)
    tracker.metrics(1, {"loss": 1.0})
    assert tracker.close(60)
    offset = SpoolCursor.read(tmp_path / CURSOR).offset
    write_atomic(tmp_path / CURSOR, SpoolCursor(offset=offset, run_id="f" * 32).model_dump_json())
    whole, refusals = Carrier._send, iter([MlflowException("no", error_code=1000)])

    def refuse_once(self: Carrier, run_id: str, group: list[dict[str, Any]]) -> None:
        for refusal in refusals:
            raise refusal
        whole(self, run_id, group)

    monkeypatch.setattr(Carrier, "_send", refuse_once)
    again = track(tmp_path, store, f"{experiment}-2")
    again.metrics(2, {"loss": 2.0})
    assert again.close(60)
    assert curve(store, again.run_id, "loss") == [(1, 1.0), (2, 2.0)]


def test_a_campaign_run_that_somebody_deleted_holds_nothing_up(tmp_path: Path, store: str, experiment: str) -> None:
    tracker = track(tmp_path, store, experiment)
    tracker.tags({"mlflow.parentRunId": "f" * 32})
    tracker.status("FINISHED")
    tracker.metrics(1, {"loss": 1.0})
    assert tracker.close(60)
    assert curve(store, tracker.run_id, "loss") == [(1, 1.0)]


def test_what_is_written_while_the_carrier_looks_is_not_left_behind_at_the_end(
    tmp_path: Path, store: str, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = track(tmp_path, None, experiment)
    carrier = Carrier(tmp_path, JOB, store, experiment)
    look = carrier._next_group

    def look_a_moment_too_early() -> tuple[list[dict[str, Any]], int]:
        found = look()
        if not carrier._closing.is_set():
            writer.metrics(1, {"loss": 1.0})
            writer.close(0)
            carrier._closing.set()
        return found

    monkeypatch.setattr(carrier, "_next_group", look_a_moment_too_early)
    carrier.run()
    assert curve(store, carrier.run_id, "loss") == [(1, 1.0)]


def test_what_mlflow_refuses_is_left_out_and_the_rest_arrives(
    tmp_path: Path, store: str, experiment: str, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = track(tmp_path, store, experiment)
    tracker.tags({"a bad name \x00 " + 300 * "x": "refused"})
    tracker.metrics(1, {"loss": 1.0})
    assert tracker.close(60)
    assert curve(store, tracker.run_id, "loss") == [(1, 1.0)]
    assert "MLflow refuses tags for good" in caplog.text


def test_changed_parameters_of_a_second_attempt_do_not_stop_it(tmp_path: Path, store: str, experiment: str) -> None:
    for value in ("1", "2"):
        tracker = track(tmp_path, store, experiment)
        tracker.params({"env.python": value})
        tracker.metrics(int(value), {"loss": 0.0})
        assert tracker.close(60)
    run = mlflow.MlflowClient(tracking_uri=store).get_run(tracker.run_id)
    assert run.data.params == {"env.python": "1"}
    assert [step for step, _ in curve(store, tracker.run_id, "loss")] == [1, 2]


def test_a_diverged_loss_does_not_stop_the_tracking(tmp_path: Path, store: str, experiment: str) -> None:
    tracker = track(tmp_path, store, experiment)
    tracker.metrics(1, {"loss": math.nan})
    tracker.metrics(2, {"loss": math.inf})
    tracker.metrics(3, {"loss": 1.0})
    assert tracker.close(60)
    assert [step for step, _ in curve(store, tracker.run_id, "loss")] == [1, 2, 3]


def test_an_artifact_that_is_gone_is_reported_and_passed_over(
    tmp_path: Path, store: str, experiment: str, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = track(tmp_path, store, experiment)
    tracker.artifacts(tmp_path / "never", "x")
    tracker.metrics(1, {"loss": 1.0})
    assert tracker.close(60)
    assert "is gone and was not uploaded" in caplog.text
    assert curve(store, tracker.run_id, "loss") == [(1, 1.0)]


def test_jobs_of_a_campaign_share_one_parent_run(tmp_path: Path, store: str, experiment: str) -> None:
    runs = []
    for number in (1, 2):
        job = {"job_id": f"c1-{number}", "job_name": f"n{number}", "campaign_id": "c1", "campaign_name": "grid"}
        tracker = track(tmp_path / str(number), store, experiment, job)
        tracker.status("FINISHED")
        assert tracker.close(60)
        runs.append(mlflow.MlflowClient(tracking_uri=store).get_run(tracker.run_id))
    parents = {run.data.tags["mlflow.parentRunId"] for run in runs}
    assert len(parents) == 1
    parent = mlflow.MlflowClient(tracking_uri=store).get_run(parents.pop())
    assert parent.info.run_name == "grid"
    assert parent.info.status == "RUNNING"  # the service ends it: others of the campaign may still wait


def test_a_registered_model_gets_one_version_however_often_it_is_asked_for(
    tmp_path: Path, store: str, experiment: str
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    for _attempt in (1, 2):
        tracker = track(tmp_path, store, experiment)
        tracker.artifacts(tmp_path / "model", "model")
        tracker.register("bert-90", "current", "model")
        assert tracker.close(60)
    client = mlflow.MlflowClient(tracking_uri=store)
    versions = client.search_model_versions("name = 'bert-90'")
    assert [(str(v.version), v.run_id, v.tags["prunus.job_id"]) for v in versions] == [("1", tracker.run_id, "j1")]
    assert str(client.get_model_version_by_alias("bert-90", "current").version) == "1"


def test_a_new_attempt_makes_a_failed_run_running_again(tmp_path: Path, store: str, experiment: str) -> None:
    for status in ("FAILED", "RUNNING"):
        tracker = track(tmp_path, store, experiment)
        tracker.status(status)
        assert tracker.close(60)
        assert mlflow.MlflowClient(tracking_uri=store).get_run(tracker.run_id).info.status == status


def test_without_an_address_everything_stays_in_the_spool(tmp_path: Path) -> None:
    tracker = track(tmp_path, None, "e")
    tracker.metrics(1, {"loss": 1.0})
    assert tracker.close(0) is False
    assert tracker.run_id is None
    assert [json.loads(line)["op"] for line in (tmp_path / SPOOL).read_text().splitlines()] == ["metrics"]


def test_an_unforeseen_error_of_the_carrier_is_logged_and_does_not_end_it(
    tmp_path: Path, store: str, experiment: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, failures = Carrier._send, iter([ValueError("odd")])
    failed = threading.Event()

    def sometimes(self: Carrier, run_id: str, group: list[dict[str, Any]]) -> None:
        for failure in failures:
            failed.set()
            raise failure
        whole(self, run_id, group)

    monkeypatch.setattr(Carrier, "_send", sometimes)
    tracker = track(tmp_path, store, experiment)
    tracker.metrics(1, {"loss": 1.0})
    assert failed.wait(60)
    assert tracker.close(60)
    assert curve(store, tracker.run_id, "loss") == [(1, 1.0)]
    assert "odd" in caplog.text


def test_a_refusal_is_told_from_an_absence() -> None:
    assert mlflow_carrier._is_refusal(MlflowException("no", error_code=1000))  # INVALID_PARAMETER_VALUE
    assert not mlflow_carrier._is_refusal(MlflowException("busy", error_code=8))  # TEMPORARILY_UNAVAILABLE
