"""The demo's table: sizes out of the manifests, zeros out of what was fetched; its campaigns, which share the cores."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from prunus.configs import Launch, StopReason
from prunus.service.cli import follow
from prunus.service.cli.demo import results_table, run_campaigns, weight_bytes
from prunus.service.client import Client
from prunus.service.submission.shipped_recipes import load_recipe
from prunus.service.wire import ArtifactView, FileView, JobState, JobView
from tests.service.command_line import clock_that
from tests.service.world import World, finish, make_campaign, make_spec


def artifact(**sizes: int) -> ArtifactView:
    files = tuple(FileView(path=path, size=size, sha256="0" * 64) for path, size in sizes.items())
    return ArtifactView(source="job:j", job_id="j", job_name="j", manifest_sha256="0" * 64, files=files)


def test_bytes_of_the_weights_in_both_forms() -> None:
    shards = {
        "model/model-00001-of-00002.safetensors": 100,
        "model/model-00002-of-00002.safetensors": 50,
        "compact/model.sparse-00001-of-00002.safetensors.zst": 20,
        "compact/model.sparse-00002-of-00002.safetensors.zst": 10,
        "model/tokenizer.json": 7,
        "masks/step-5/mask.safetensors": 9,
    }
    assert weight_bytes(artifact(**shards)) == (150, 30)
    assert weight_bytes(artifact(**{"model/model.safetensors": 100})) == (100, None)


def test_a_dense_model_has_no_compact_size(tmp_path: Path) -> None:
    jobs = [
        JobView(id=name, name=name, campaign_id="c", state=JobState.SUCCEEDED, created_at=0.0)
        for name in ("teacher", "sparse")
    ]
    table = results_table(jobs, tmp_path, {"teacher": (90_000_000, None), "sparse": (90_000_000, 49_000_000)})
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table)
    header, teacher, sparse = captured.get().splitlines()[1:4]
    assert header.split()[-3:] == ["PLAIN", "COMPACT", "TIME"]
    assert teacher.split()[1:3] == ["90.0", "MB"] and "49.0 MB" not in teacher
    assert "90.0 MB  49.0 MB" in sparse


def starting(world: World) -> list[str]:
    return sorted(job.spec.name for job in world.store.jobs() if job.state is JobState.STARTING)


def test_jobs_of_one_rank_run_beside_those_of_the_other_campaign(world: World) -> None:
    """On two cores, whatever the gangs of two ranks leave."""
    for recipe in ("prune_ofa/demo", "parp/demo"):
        world.submitter.submit(load_recipe(recipe))
    for gang in ("teacher", "sparse"):
        world.step()
        assert starting(world) == [gang]
        finish(world, gang, {"model/config.json": "{}"})
    world.step()
    assert starting(world) == ["dense-task", "three-languages"]
    finish(world, "three-languages", {"model/config.json": "{}"})
    world.step()
    assert starting(world) == ["dense-task", "parp-es"]


@pytest.fixture
def clock(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Looking again is a step of the server."""
    monkeypatch.setattr(follow, "time", clock_that(world.step))
    yield


@pytest.mark.usefixtures("clock")
def test_a_campaign_that_fails_does_not_take_the_other_along(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.cluster.automatic = True
    good = make_campaign(make_spec("a"), make_spec("b", "job:a"), name="good")
    bad = make_campaign(make_spec("c"), make_spec("d", "job:c"), name="bad")
    submit = world.cluster.submit

    def fail_c(launch: Launch) -> None:
        submit(launch)
        if launch.job_name == "c":
            world.cluster.finish(launch.attempt_id, StopReason.USER_ERROR, "no such column")

    monkeypatch.setattr(world.cluster, "submit", fail_c)
    ended, nothing = run_campaigns(client, [good, bad])
    assert [job.name for job in ended] == ["a", "b"] and nothing == []
    assert world.state("d") is JobState.SKIPPED

    monkeypatch.setattr(world.cluster, "submit", submit)
    again, mended = run_campaigns(client, [good, bad])
    assert [job.id for job in again] == [job.id for job in ended]
    assert [job.name for job in mended] == ["c", "d"]
