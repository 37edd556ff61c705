"""The store on SQLite, and on PostgreSQL where PRUNUS_TEST_POSTGRES names an empty database that may be overwritten."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from prunus.service.store.database import Database
from prunus.service.store.store import Store
from tests.service.world import Clock


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
