"""Jobs read back, also damaged ones and those of another release."""

import json

import pytest
from sqlalchemy import text

from prunus.service.errors import NotFound
from prunus.service.store.store import Store
from prunus.service.wire import JobState
from tests.service.store.queue import add
from tests.service.world import make_spec


def test_a_job_comes_back_as_it_was_stored(store: Store) -> None:
    campaign = add(store, "a", "b", campaign="demo")
    row = store.find_job("a")
    assert (row.name, row.state, row.campaign_id, row.spec) == ("a", JobState.QUEUED, campaign, make_spec("a"))
    assert store.find_job(row.id) == store.find_job("demo/a") == store.find_job("demo:a") == row
    assert [job.name for job in store.jobs()] == ["a", "b"]
    assert [job.name for job in store.jobs(newest_first=True, limit=1)] == ["b"]


def rewrite_spec(store: Store, name: str, **changes: object) -> None:
    """Write into the database what another release might have."""
    with store._database.engine.begin() as connection:
        spec = json.loads(connection.scalar(text("SELECT spec FROM jobs WHERE name = :n"), {"n": name}))
        changed = json.dumps({**spec, **changes})
        connection.execute(text("UPDATE jobs SET spec = :s WHERE name = :n"), {"s": changed, "n": name})


def test_keys_of_another_release_in_a_stored_spec_are_dropped(store: Store) -> None:
    add(store, "a")
    train = json.loads(make_spec("a").model_dump_json())["train"]
    rewrite_spec(store, "a", colour="blue", train={**train, "momentum": 0.9})
    assert store.find_job("a").spec == make_spec("a")


def test_a_row_that_cannot_be_read_hides_no_other(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    add(store, "bad", "good")
    store.begin_attempt(store.find_job("bad"), [], "now")
    store.begin_attempt(store.find_job("good"), [], "now")
    rewrite_spec(store, "bad", schema_version=2)
    for _ in range(3):
        assert [job.name for job in store.jobs()] == ["good"]
        assert [job.name for job, _ in store.active()] == ["good"]
    assert [record.message.count("left out: job bad") for record in caplog.records] == [1]
    with pytest.raises(NotFound, match="is stored, but cannot be read; another release"):
        store.find_job("bad")


def test_a_name_means_the_newest_job_of_that_name(store: Store) -> None:
    add(store, "a")
    second = add(store, "a")
    assert store.find_job("a").campaign_id == second


@pytest.mark.parametrize("ref", ["nope", "nope/a", "j-0000000000000", "", "/", "a/b/c", "x" * 5000])
def test_what_does_not_exist_is_not_found(store: Store, ref: str) -> None:
    add(store, "a")
    with pytest.raises(NotFound):
        store.find_job(ref)
