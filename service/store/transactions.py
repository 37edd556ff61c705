"""Transactions on the store's database: one for reading, one for writing, errors as our own."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from prunus.service.errors import StoreError
from prunus.service.store.database import WRITES, Database


class Transactions:
    """Usable from several threads.

    Args:
        database: An open database; ``close`` closes it.
        clock: Gives Unix seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def close(self) -> None:
        """Give the database back."""
        self._database.close()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._translated(), self._database.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._translated():
            connection = self._database.engine.connect().execution_options(**{WRITES: True})
            with connection, connection.begin():
                yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise StoreError(
                f"the store {self._database.name} failed: {error.orig}; is its disk full or away?"
            ) from error
