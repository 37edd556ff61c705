"""The run of a campaign ends as the campaign: decisions by hand, the store, and a real MLflow store in a file."""

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from prunus.cluster.executor import Node
from prunus.configs import Launch, StopReason
from prunus.jobs.tracking.tracker import Tracker, identity
from prunus.service.errors import Unreachable
from prunus.service.publishing.campaign_runs import CampaignRuns, end_status
from prunus.service.sources.mlflow_registry import MlflowRegistry
from prunus.service.sources.registry import NoRegistry
from prunus.service.wire import JobState as S
from tests.service.world import World, make_spec

FOUR = (Node("n1", 4.0, 0.0),)


class Runs(NoRegistry):
    """Notes which parents were ended; may be away."""

    def __init__(self) -> None:
        self.up = True
        self.ended: list[tuple[str, str]] = []

    def end_parent(self, run_id: str, status: str) -> bool:
        if not self.up:
            raise Unreachable("MLflow does not answer")
        self.ended.append((run_id, status))
        return True


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world(nodes=FOUR)


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ([S.SUCCEEDED, S.SUCCEEDED], "FINISHED"),
        ([S.SUCCEEDED, S.CANCELLED], "KILLED"),
        ([S.CANCELLED, S.FAILED, S.SUCCEEDED], "FAILED"),
        ([S.FAILED, S.SKIPPED], "FAILED"),
        ([S.CANCELLED, S.SKIPPED], "KILLED"),
        ([S.SUCCEEDED, S.SKIPPED], "FAILED"),
    ],
)
def test_a_campaign_ends_as_its_worst_job(states: list[S], status: str) -> None:
    assert end_status({state: states.count(state) for state in states}) == status


def end(world: World, name: str, reason: StopReason = StopReason.SUCCEEDED, *, published: bool = True) -> None:
    world.cluster.finish(world.attempt_id(name), reason)
    world.step()
    if published:
        world.store.mark_published(world.job(name), None, "for the test")


def test_the_run_is_ended_once_when_the_last_job_has_ended_and_mlflow_has_all(world: World, runs: Runs) -> None:
    world.submit(make_spec("a"), make_spec("b"), make_spec("c", after=["b"]), name="trio", max_parallel=1)
    campaign_runs = CampaignRuns(world.store, runs)
    world.step()
    end(world, "a")
    campaign_runs.step()
    assert runs.ended == []  # b has not run, c waits for it
    end(world, "b", StopReason.USER_ERROR, published=False)
    world.step()
    assert world.state("c") is S.SKIPPED
    campaign_runs.step()
    assert runs.ended == []  # b's spool is not in MLflow: it would set its own run's status later
    world.store.mark_published(world.job("b"), None, "for the test")
    for _ in range(3):
        campaign_runs.step()
    assert runs.ended == [(f"run-of-{world.job('a').id}", "FAILED")]


def test_jobs_that_were_cancelled_before_they_ran_count(world: World, runs: Runs) -> None:
    world.submit(make_spec("a"), make_spec("b"), name="pair", max_parallel=1)
    world.step()
    world.store.request_stop(world.job("b").id, StopReason.CANCELLED, "cancelled by a user")
    end(world, "a")
    CampaignRuns(world.store, runs).step()
    assert runs.ended == [(f"run-of-{world.job('a').id}", "KILLED")]


def test_a_campaign_that_never_ran_has_no_run_to_end(world: World, runs: Runs) -> None:
    campaign = world.submit(make_spec("a"), make_spec("b"), name="pair")
    world.store.cancel_campaign(campaign, "cancelled by a user")
    CampaignRuns(world.store, runs).step()
    assert runs.ended == [] and world.store.unsettled_campaigns(10) == []


def test_while_mlflow_is_away_it_is_tried_again(world: World, runs: Runs) -> None:
    world.submit(make_spec("a"), name="one")
    world.step()
    end(world, "a")
    campaign_runs = CampaignRuns(world.store, runs)
    runs.up = False
    campaign_runs.step()
    assert len(world.store.unsettled_campaigns(10)) == 1
    runs.up = True
    campaign_runs.step()
    assert [status for _, status in runs.ended] == ["FINISHED"]


def track(launch: Launch, root: Path, uri: str, status: str) -> str:
    """A job's rank 0: its run, with an end."""
    tracker = Tracker(root / launch.job_id, identity(launch), uri, "prunus")
    tracker.status("RUNNING")
    tracker.status(status)
    assert tracker.close(60)
    assert tracker.run_id is not None
    return tracker.run_id


@pytest.mark.parametrize(("worst", "status"), [("FINISHED", "FINISHED"), ("FAILED", "FAILED"), ("KILLED", "KILLED")])
def test_in_mlflow_all_jobs_hang_under_one_run_that_ends_with_the_last(
    world: World, mlflow_uri: str, tmp_path: Path, worst: str, status: str
) -> None:
    client = mlflow.MlflowClient(tracking_uri=mlflow_uri)
    campaign_runs = CampaignRuns(world.store, MlflowRegistry(mlflow_uri, "prunus"))
    names = [f"{worst.lower()}-{i}" for i in range(3)]
    campaign = world.submit(*(make_spec(name) for name in names), name=f"grid-{worst.lower()}", max_parallel=1)
    reasons = {"FINISHED": StopReason.SUCCEEDED, "FAILED": StopReason.USER_ERROR, "KILLED": StopReason.CANCELLED}
    told = []
    for name, end_of_job in zip(names, ("FINISHED", worst, "FINISHED"), strict=True):
        world.step()
        launch = world.cluster.launches[world.attempt_id(name)]
        run_id = track(launch, tmp_path, mlflow_uri, end_of_job)
        if end_of_job == "KILLED":
            world.store.request_stop(world.job(name).id, StopReason.CANCELLED, "cancelled by a user")
        world.cluster.finish(launch.attempt_id, reasons[end_of_job], run_id=run_id, published=True)
        world.step()
        campaign_runs.step()
        parent = client.get_run(client.get_run(run_id).data.tags["mlflow.parentRunId"])
        told.append((parent.info.run_id, parent.info.run_name, parent.info.status))
    assert [state for _, _, state in told] == ["RUNNING", "RUNNING", status]
    assert {(run_id, name) for run_id, name, _ in told} == {(told[0][0], f"grid-{worst.lower()}")}
    assert client.get_run(told[0][0]).info.end_time is not None
    assert client.get_run(told[0][0]).data.tags["prunus.campaign"] == campaign


def test_an_mlflow_that_lost_the_runs_is_not_asked_for_ever(mlflow_uri: str) -> None:
    assert not MlflowRegistry(mlflow_uri, "prunus").end_parent("f" * 32, "FINISHED")


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store in a file for the module: making its tables takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    mlflow.MlflowClient(tracking_uri=uri).search_experiments()
    return uri
