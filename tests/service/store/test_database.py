"""One owner, durable, at its newest schema."""

import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, text

import prunus.service.store.migrations
from prunus.service.errors import StoreError, StoreLocked
from prunus.service.store.database import Database
from prunus.service.store.rows import CampaignCounts, CampaignRow
from prunus.service.store.store import Store
from prunus.service.store.tables import metadata
from prunus.service.wire import JobState
from tests.service.world import Clock, make_spec


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
