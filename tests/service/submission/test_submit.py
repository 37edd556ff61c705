"""What is refused at submit, before a row is written."""

from pathlib import Path

import pytest

from prunus.configs import Campaign
from prunus.service.errors import Refused
from prunus.service.submission.local_files import missing_files
from prunus.service.submission.submit import Submitter
from prunus.service.wire import JobState
from tests.service.world import World, make_campaign, make_spec


def test_an_unknown_source_job_is_refused_and_nothing_is_queued(world: World) -> None:
    with pytest.raises(Refused, match="job:nope, which b reads from, is neither in this campaign nor"):
        world.submit(make_spec("a"), make_spec("b", "job:nope"))
    assert world.store.jobs() == []


def test_what_many_jobs_lack_is_told_once(world: World) -> None:
    with pytest.raises(Refused) as caught:
        world.submit(*(make_spec(f"j{number}", "job:nope") for number in range(9)))
    assert str(caught.value) == (
        "job:nope, which j0, j1, j2 and 6 more read from, is neither in this campaign nor an earlier job that "
        "succeeded or may yet; submit what makes it first (jobs here: j0, j1, j2 and 6 more)"
    )
    embedded = Submitter(world.store, world.cluster, embedded=True, clock=world.clock)
    with pytest.raises(Refused) as caught:
        embedded.submit(make_campaign(*(make_spec(f"j{number}", "/no/such") for number in range(4))))
    assert str(caught.value).count("j0, j1, j2 and 1 more: model: there is no directory '/no/such'") == 1
    assert len(str(caught.value).splitlines()) == 3  # train, eval, model


@pytest.mark.parametrize("ended", [JobState.FAILED, JobState.CANCELLED])
def test_an_earlier_job_that_cannot_succeed_any_more_is_no_source(world: World, ended: JobState) -> None:
    world.submit(make_spec("a"))
    world.store.transition(world.job("a"), ended, "for the test")
    with pytest.raises(Refused, match="job:a"):
        world.submit(make_spec("b", "job:a"))


def test_an_earlier_job_that_still_runs_is_waited_for(world: World) -> None:
    world.submit(make_spec("a"))
    world.start("a")
    world.submit(make_spec("b", "job:a"))
    assert (world.state("b"), world.job("b").parents) == (JobState.BLOCKED, (world.job("a").id,))


def test_a_source_may_be_named_by_its_id(world: World) -> None:
    world.submit(make_spec("a"))
    wanted = world.job("a").id
    world.submit(make_spec("a"))
    world.submit(make_spec("b", f"job:{wanted}"))
    assert world.job("b").parents == (wanted,)


def test_all_mistakes_are_named_at_once(world: World) -> None:
    with pytest.raises(Refused) as caught:
        world.submit(make_spec("a", "job:x"), make_spec("b", resources={"num_ranks": 8}))
    assert "job:x" in str(caught.value)
    assert "needs 8 ranks x 1 CPU" in str(caught.value)


@pytest.mark.parametrize(
    "resources", [{"gpus_per_rank": 1}, {"num_ranks": 4}, {"cpus_per_rank": 2.5}], ids=["gpu", "ranks", "wide rank"]
)
def test_more_than_the_cluster_can_ever_have_is_refused_with_the_numbers(
    world: World, resources: dict[str, object]
) -> None:
    with pytest.raises(Refused, match="the cluster has 2 CPUs and 0 GPUs on 1 node"):
        world.submit(make_spec("a", resources=resources))


def test_a_cluster_that_does_not_answer_refuses_nothing(world: World) -> None:
    world.cluster.reachable = False
    world.submit(make_spec("a", resources={"num_ranks": 8}))
    assert world.state("a") is JobState.QUEUED


def test_a_circle_and_a_double_name_are_refused_on_the_server_too(world: World) -> None:
    with pytest.raises(Refused, match="in a circle"):
        world.submit(make_spec("a", "job:b"), make_spec("b", "job:a"))
    with pytest.raises(Refused, match="two jobs are named"):
        world.submit(make_spec("a"), make_spec("a"))
    with pytest.raises(Refused, match="no jobs"):
        world.submitter.submit(Campaign(jobs=()))


def test_an_embedded_server_looks_for_files_and_directories(world: World, tmp_path: Path) -> None:
    embedded = Submitter(world.store, world.cluster, embedded=True, clock=world.clock)
    with pytest.raises(Refused) as caught:
        embedded.submit(make_campaign(make_spec("a", "/no/such/model")))
    assert "a: task.data.train.files[0]: no file matches '/data/rows.csv'; mend the path" in str(caught.value)
    assert "a: model: there is no directory '/no/such/model'; name a directory" in str(caught.value)
    (tmp_path / "rows-1.csv").write_text("text,label\n")
    (tmp_path / "config.json").write_text("{}")
    files = {"files": [f"{tmp_path}/rows-*.csv"]}
    task = {"name": "classification", "data": {"train": files, "eval": files}}
    embedded.submit(make_campaign(make_spec("a", str(tmp_path), task=task)))
    assert world.state("a") is JobState.QUEUED


def test_a_vocabulary_and_a_folder_of_clips_that_are_not_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "train.tsv").write_text("path\tsentence\n")
    source = {"files": [f"{tmp_path}/train.tsv"], "clips": f"{tmp_path}/clips"}
    task = {"name": "ctc", "data": {"train": source}, "transcripts": {"vocabulary": f"{tmp_path}/vocab.json"}}
    found = [missing.place for missing in missing_files(make_spec("a", str(tmp_path), task=task))]
    assert found == ["task.data.train[0].clips", "task.transcripts.vocabulary"]
