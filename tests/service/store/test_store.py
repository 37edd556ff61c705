"""The store on SQLite, and on PostgreSQL where PRUNUS_TEST_POSTGRES names an empty database that may be overwritten."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, text

import prunus.service.store.migrations
from prunus.configs import Progress, StopReason
from prunus.service.errors import NotFound, Refused, StaleTransition, StoreError, StoreLocked
from prunus.service.store.database import Database
from prunus.service.store.rows import CampaignCounts, CampaignRow, NewJob, new_ids
from prunus.service.store.store import Store
from prunus.service.store.tables import metadata
from prunus.service.wire import JobState
from tests.service.world import Clock, make_spec

Open = Callable[[], Store]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'prunus.db'}"
        return
    address = os.environ.get("PRUNUS_TEST_POSTGRES")
    if not address:
        pytest.skip("PRUNUS_TEST_POSTGRES names no PostgreSQL database")
    yield address
    database = Database(address)
    with database.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    database.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[Store]:
    opened = Store(Database(url), clock)
    yield opened
    opened.close()


def add(store: Store, *names: str, campaign: str | None = None, key: str | None = None, body: str = "x") -> str:
    now = 1_800_000_000.0
    ids = new_ids("j", len(names), now)
    jobs = [
        NewJob(job_id, make_spec(name), (), {}, JobState.QUEUED, "waits for its turn")
        for job_id, name in zip(ids, names, strict=True)
    ]
    return store.add_campaign(CampaignRow(new_ids("c", 1, now)[0], campaign, now), {}, jobs, key, body)


def test_the_migrations_give_the_schema_of_the_tables(url: str) -> None:
    database = Database(url)
    with database.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    database.close()
    assert differences == []


def at_revision(url: str, revision: str) -> Engine:
    """An empty database as an older release left it."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    config = Config()
    config.set_main_option("script_location", str(Path(prunus.service.store.migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return engine


def test_a_database_of_the_first_release_is_upgraded_and_keeps_its_campaigns(url: str, clock: Clock) -> None:
    engine = at_revision(url, "0001")
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO campaigns (id, name, labels, created_at) VALUES ('c-1', 'old', '{}', 5.0)")
        )
        connection.execute(
            text(
                "INSERT INTO jobs (id, campaign_id, name, state, why, spec, parents, job_references, created_at, "
                "published, metrics) VALUES ('j-1', 'c-1', 'a', 'QUEUED', 'waits', :spec, '[]', '{}', 5.0, :no, '{}')"
            ),
            {"spec": make_spec("a").model_dump_json(by_alias=True), "no": False},
        )
    engine.dispose()
    store = Store(Database(url), clock)
    assert store.find_campaign("old") == CampaignRow("c-1", "old", 5.0, max_parallel=None)
    assert store.find_job("old/a").id == "j-1"
    assert store.counts(["c-1"]) == {"c-1": CampaignCounts({JobState.QUEUED: 1}, None)}
    store.close()


def test_a_limit_is_kept_with_its_campaign(store: Store) -> None:
    now = 1_800_000_000.0
    jobs = [NewJob("j-1", make_spec("a"), (), {}, JobState.QUEUED, "waits for its turn")]
    store.add_campaign(CampaignRow("c-1", "grid", now, max_parallel=4), {}, jobs)
    assert store.find_campaign("grid").max_parallel == 4
    assert store.campaigns(["c-1", "c-none"]) == {"c-1": CampaignRow("c-1", "grid", now, 4)}


def test_campaigns_are_listed_newest_first_without_jobs_submitted_alone(store: Store) -> None:
    add(store, "a")
    several = add(store, "b", "c")
    named = add(store, "d", campaign="one")
    assert {row.id for row in store.newest_campaigns(10)} == {several, named}
    assert len(store.newest_campaigns(1)) == 1


def test_counts_tell_when_the_last_job_ended(store: Store, clock: Clock) -> None:
    campaign = add(store, "a", "b", campaign="pair")
    clock.tick(5.0)
    store.request_stop(store.find_job("a").id, StopReason.CANCELLED, "cancelled")
    assert store.counts([campaign])[campaign] == CampaignCounts({JobState.CANCELLED: 1, JobState.QUEUED: 1}, None)
    clock.tick(5.0)
    store.request_stop(store.find_job("b").id, StopReason.CANCELLED, "cancelled")
    assert store.counts([campaign])[campaign] == CampaignCounts({JobState.CANCELLED: 2}, clock.now)
    assert store.counts([]) == {}


def test_a_campaign_is_cancelled_whole_once(store: Store) -> None:
    campaign = add(store, "runs", "waits", "ended")
    store.begin_attempt(store.find_job("runs"), ["n1"], "now")
    store.transition(store.find_job("ended"), JobState.FAILED, "no such source")
    told = store.cancel_campaign(campaign, "cancelled by a user")
    assert told == [store.find_job("runs").id, store.find_job("waits").id]
    assert [job.state for job in store.jobs()] == [JobState.CANCELLING, JobState.CANCELLED, JobState.FAILED]
    assert store.active()[0][1].stop_reason is StopReason.CANCELLED
    assert store.cancel_campaign(campaign, "again") == []
    assert store.find_job("waits").why == "cancelled by a user"


def test_a_second_server_on_the_same_database_is_refused(url: str) -> None:
    first = Database(url)
    with pytest.raises(StoreLocked, match="another prunus server"):
        Database(url)
    first.close()
    Database(url).close()


@pytest.mark.parametrize("bad", ["sqlite://", "mysql://x/y", "no url"])
def test_a_store_that_cannot_hold_the_queue_is_refused(bad: str) -> None:
    with pytest.raises(StoreError):
        Database(bad)


def test_a_missing_driver_of_postgresql_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"needs the package psycopg.*pip install 'prunus\[postgres\]'") as caught:
        Database("postgresql://u:s3cret@127.0.0.1:9/db")
    assert "s3cret" not in str(caught.value)


def test_sqlite_is_durable_and_checks_references(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    with database.engine.connect() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("journal_mode", "synchronous", "foreign_keys")
        ]
    database.close()
    assert pragmas == ["wal", 2, 1]


def test_ids_sort_by_time_and_place_and_are_safe_in_paths() -> None:
    early, late = new_ids("j", 3, 1000.0), new_ids("j", 2, 1000.002)
    assert sorted([*late, *early]) == [*early, *late]
    assert all(len(name) == 15 and name.replace("-", "").isalnum() and name == name.lower() for name in early)


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


def test_a_transition_happens_only_from_the_state_it_was_decided_in(store: Store) -> None:
    add(store, "a")
    row = store.find_job("a")
    store.transition(row, JobState.CANCELLED, "cancelled")
    with pytest.raises(StaleTransition):
        store.transition(row, JobState.FAILED, "too late")
    with pytest.raises(StaleTransition):
        store.begin_attempt(row, [], "too late")
    assert store.find_job("a").state is JobState.CANCELLED
    assert store.attempts([row.id]) == {row.id: []}
    assert [event.kind for event in store.events(row.id)] == ["submitted", "cancelled"]


def test_tokens_only_grow_also_over_jobs_and_restarts(url: str, clock: Clock) -> None:
    tokens = []
    for name in ("a", "b", "c"):
        store = Store(Database(url), clock)
        add(store, name)
        tokens.append(store.begin_attempt(store.find_job(name), [], "now").token)
        store.close()
    assert tokens == sorted(set(tokens))


def test_an_attempt_ends_once(store: Store) -> None:
    add(store, "a")
    attempt = store.begin_attempt(store.find_job("a"), ["n1"], "now")
    running = store.find_job("a")
    store.end_attempt(
        running, attempt, StopReason.USER_ERROR, JobState.FAILED, JobState.FAILED, "bad", "bad", metrics={"x": 1.0}
    )
    with pytest.raises(StaleTransition):
        store.end_attempt(running, attempt, StopReason.SUCCEEDED, JobState.SUCCEEDED, JobState.SUCCEEDED, "", "")
    ended = store.attempts([running.id])[running.id][0]
    assert (ended.reason, ended.state, ended.message) == (StopReason.USER_ERROR, JobState.FAILED, "bad")
    assert store.active() == []
    assert store.find_job("a").metrics == {"x": 1.0}


def test_a_retried_job_gets_the_next_number_and_keeps_its_place(store: Store) -> None:
    add(store, "a", "b")
    first = store.begin_attempt(store.find_job("a"), [], "now")
    store.end_attempt(
        store.find_job("a"), first, StopReason.WORKER_LOST, JobState.FAILED, JobState.QUEUED, "lost", "retry: 1 <= 1"
    )
    second = store.begin_attempt(store.find_job("a"), [], "again")
    assert (first.number, second.number) == (1, 2)
    assert second.id.endswith("-a2")
    assert second.token > first.token
    assert store.jobs()[0].name == "a"


def test_progress_is_kept_with_the_attempt(store: Store) -> None:
    add(store, "a")
    attempt = store.begin_attempt(store.find_job("a"), [], "now")
    progress = Progress(attempt_id=attempt.id, time=5.0, phase="training", step=3, metrics={"loss/train": 1.5})
    store.note(attempt, progress=progress)
    assert store.active()[0][1].progress == progress


def test_the_same_key_and_body_queue_once_among_twenty_threads(store: Store) -> None:
    barrier = threading.Barrier(20)

    def post(_: int) -> str:
        barrier.wait()
        return add(store, "a", "b", key="key-1")

    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(post, range(20)))
    assert len(answers) == 1
    assert len(store.jobs()) == 2


def test_the_same_key_with_another_body_is_refused(store: Store) -> None:
    add(store, "a", key="key-1")
    with pytest.raises(Refused, match="used for another campaign"):
        add(store, "b", key="key-1", body="y")
    assert len(store.jobs()) == 1


def test_of_twenty_schedulers_one_gets_the_job(store: Store) -> None:
    add(store, "a")
    row = store.find_job("a")
    barrier = threading.Barrier(20)

    def begin(_: int) -> bool:
        barrier.wait()
        try:
            store.begin_attempt(row, [], "now")
        except StaleTransition:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(begin, range(20))) == 1
    assert len(store.attempts([row.id])[row.id]) == 1
