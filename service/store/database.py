"""Opens the database: engine, durability settings, one owner, schema at its newest version. Knows no table.

SQLite: WAL, ``synchronous=FULL`` (an acknowledged submission survives a power cut), foreign keys, and a lock file,
because two schedulers on one file would both dispatch. PostgreSQL: an advisory lock on a connection of its own.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from prunus.service.errors import StoreError, StoreLocked

WRITES = "prunus_writes"
"""Execution option of a connection that will write: SQLite then takes the write lock at once, not in the middle."""
_MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 7_077_853_001


class Database:
    """An engine that this process owns until ``close``.

    Args:
        url: SQLAlchemy URL of SQLite or PostgreSQL.

    Raises:
        StoreLocked: Another server owns it.
        StoreError: It cannot be opened or upgraded.
    """

    def __init__(self, url: str) -> None:
        self._lock_file: IO[str] | None = None
        self._lock_connection: Connection | None = None
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise StoreError("the store's URL cannot be read; write sqlite:///FILE or postgresql://...") from error
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if parsed.drivername in {"postgres", "postgresql"}:
            parsed = parsed.set(drivername="postgresql+psycopg")
        elif not self.is_sqlite and parsed.get_backend_name() != "postgresql":
            raise StoreError(f"the store {parsed.get_backend_name()!r} is not supported; use sqlite or postgresql")
        self.name = parsed.render_as_string(hide_password=True)
        try:
            if self.is_sqlite:
                self._lock_sqlite(Path(parsed.database or ""))
                self.engine: Engine = create_engine(parsed, connect_args={"timeout": 30.0})
                _tune_sqlite(self.engine)
            else:
                self.engine = _postgres_engine(parsed)
                self._lock_postgres()
            self._upgrade()
        except SQLAlchemyError as error:
            self.close()
            raise StoreError(f"the store {self.name} cannot be opened: {error}; is the database there?") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the database back."""
        if self._lock_connection is not None:
            # PostgreSQL frees the lock of a closed connection when it notices, and the next server may open at once.
            with suppress(SQLAlchemyError):
                self._lock_connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _ADVISORY_LOCK})
            self._lock_connection.close()
            self._lock_connection = None
        if hasattr(self, "engine"):
            self.engine.dispose()
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def _lock_sqlite(self, path: Path) -> None:
        if path.name in {"", ":memory:"}:
            raise StoreError("the store needs a file: a queue in memory would be lost; write sqlite:////A/FILE.db")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.with_name(f"{path.name}.lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise StoreError(f"the store {path} cannot be opened: {error.strerror}; choose another --home") from error
        self._lock_file = file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise StoreLocked(
                f"another prunus server (process {owner}) owns {path}; stop it first, or use another --home"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()

    def _lock_postgres(self) -> None:
        self._lock_connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        owned = self._lock_connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _ADVISORY_LOCK})
        if not owned:
            self._lock_connection.close()
            self._lock_connection = None
            raise StoreLocked(f"another prunus server owns {self.name}; stop it first")

    def _upgrade(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        with self.engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _postgres_engine(url: URL) -> Engine:
    try:
        return create_engine(url, pool_pre_ping=True)
    except ImportError as error:
        raise StoreError(
            f"the store {url.render_as_string(hide_password=True)} needs the package {error.name}, which is not "
            "installed here; pip install 'prunus[postgres]'"
        ) from error


def _tune_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # We say BEGIN ourselves, below.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
