"""``/v1/campaigns`` through the client and by hand."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from prunus.configs import Progress, StopReason
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.service.client import Client
from prunus.service.errors import NotFound, Refused
from prunus.service.wire import JobState
from tests.service.world import World, finish, make_campaign, make_spec


def test_a_campaign_goes_through_client_queue_and_cluster(client: Client, world: World) -> None:
    submitted = client.submit(make_campaign(make_spec("a"), make_spec("b", "job:a"), name="demo"))
    assert [(job.name, job.state) for job in submitted.jobs] == [("a", JobState.QUEUED), ("b", JobState.BLOCKED)]
    finish(world, "a", {"model/config.json": "{}"})
    detail = client.job("demo/a")
    assert (detail.state, detail.spec, detail.run_id) == (JobState.SUCCEEDED, make_spec("a"), f"run-of-{detail.id}")
    assert detail.attempts[0].reason is StopReason.SUCCEEDED
    assert client.campaign("demo") == client.campaign(submitted.id)
    assert [job.name for job in client.jobs()] == ["b", "a"]
    assert [job.name for job in client.jobs(state=JobState.SUCCEEDED)] == ["a"]
    assert [job.name for job in client.jobs(campaign="demo", state=[JobState.STARTING, JobState.QUEUED])] == ["b"]
    assert client.cancel("demo/b").state is JobState.CANCELLING
    assert client.cancel(detail.id).state is JobState.SUCCEEDED
    assert client.info().embedded is False


def test_a_campaign_is_listed_counted_and_cancelled_as_one(client: Client, world: World) -> None:
    specs = [make_spec("a"), make_spec("b", "job:a"), make_spec("c"), make_spec("d")]
    submitted = client.submit(make_campaign(*specs, name="demo", max_parallel=2))
    assert (submitted.max_parallel, submitted.num_jobs, submitted.progress) == (2, 4, 0.0)
    finish(world, "a", {"model/config.json": "{}"})
    directory = world.directory("c")
    half = Progress(attempt_id=world.attempt_id("c"), time=1.0, phase="training", step=5, num_steps=10)
    write_atomic(directory.progress(1), half.model_dump_json())
    world.step()
    (listed,) = client.campaigns()
    states = JobState.SUCCEEDED, JobState.RUNNING, JobState.STARTING, JobState.QUEUED
    assert listed.counts == dict.fromkeys(states, 1)
    assert listed.progress == (1 + 0.5) / 4
    assert client.campaign("demo").counts == listed.counts
    answer = client.cancel_campaign("demo")
    assert answer.cancelled == tuple(job.id for job in submitted.jobs[1:])
    assert answer.campaign.counts == {JobState.SUCCEEDED: 1, JobState.CANCELLING: 2, JobState.CANCELLED: 1}
    assert client.cancel_campaign(submitted.id).cancelled == ()
    with pytest.raises(NotFound, match="no campaign 'a'; `prunus campaigns`"):
        client.cancel_campaign("a")


def test_twenty_posts_with_one_key_queue_once(client: Client, world: World) -> None:
    campaign = make_campaign(make_spec("a"), make_spec("b"))
    barrier = threading.Barrier(20)

    def post(_: int) -> str:
        barrier.wait()
        return client.submit(campaign, idempotency_key="once").id

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(post, range(20)))) == 1
    assert len(world.store.jobs()) == 2
    with pytest.raises(Refused, match="used for another campaign"):
        client.submit(make_campaign(make_spec("other")), idempotency_key="once")


def test_a_repeat_gives_the_first_answer_also_when_the_recipe_could_not_be_queued_any_more(
    client: Client, world: World
) -> None:
    campaign = make_campaign(make_spec("pair", resources={"num_ranks": 2}))
    first = client.submit(campaign, idempotency_key="once")
    world.cluster.nodes = world.cluster.nodes[:0]
    assert client.submit(campaign, idempotency_key="once").id == first.id
