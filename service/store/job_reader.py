"""Questions about jobs, their attempts and the decisions about them. Writes nothing."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, select

from prunus.service.errors import NotFound
from prunus.service.states import ACTIVE
from prunus.service.store.campaign_reader import CampaignReader
from prunus.service.store.database import Database
from prunus.service.store.rows import (
    AttemptRow,
    EventRow,
    JobRow,
    attempt_row,
    job_row,
)
from prunus.service.store.tables import attempts, events, jobs
from prunus.service.wire import JobState

log = logging.getLogger(__name__)


class JobReader(CampaignReader):
    """Questions about jobs, beside those about campaigns."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        super().__init__(database, clock)
        self._told: set[str] = set()
        """Jobs of which the log says that they cannot be read."""

    def job(self, job_id: str) -> JobRow:
        """Return one job by its id.

        Raises:
            NotFound: There is none.
        """
        with self._read() as connection:
            return self._job(connection, job_id)

    def find_job(self, ref: str) -> JobRow:
        """Return the job that a person means: an id, NAME (the newest), CAMPAIGN/NAME or CAMPAIGN:NAME.

        Raises:
            NotFound: There is none.
        """
        campaign, _, name = ref.replace(":", "/").rpartition("/")
        query = select(jobs).order_by(jobs.c.seq.desc()).limit(1)
        if campaign:
            query = query.where(jobs.c.campaign_id == self.find_campaign(campaign).id, jobs.c.name == name)
        else:
            query = query.where((jobs.c.id == ref) | (jobs.c.name == ref))
        with self._read() as connection:
            found = connection.execute(query).mappings().first()
        if found is None:
            raise NotFound(f"no job {ref!r}; {self._hint(ref)}")
        return _readable_job(found)

    def _hint(self, ref: str) -> str:
        """What to do about a job that is not there: perhaps a campaign was meant."""
        try:
            campaign = self.find_campaign(ref)
        except NotFound:
            return "`prunus list` shows them"
        names = [job.name for job in self.jobs(campaign_id=campaign.id, limit=1)]
        example = f", such as {ref}/{names[0]}" if names else ""
        return f"that is a campaign: name one of its jobs{example}; `prunus show {ref}` lists them"

    def newest_job(self, name: str, states: Iterable[JobState]) -> JobRow | None:
        """Newest job with this name or id in one of the states."""
        query = (
            select(jobs)
            .where((jobs.c.name == name) | (jobs.c.id == name), jobs.c.state.in_([s.value for s in states]))
            .order_by(jobs.c.seq.desc())
            .limit(1)
        )
        with self._read() as connection:
            found = connection.execute(query).mappings().first()
        return None if found is None else _readable_job(found)

    def jobs(
        self,
        states: Iterable[JobState] = (),
        campaign_id: str | None = None,
        ids: Iterable[str] | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[JobRow]:
        """Jobs in the order of the queue, or the newest first; empty ``states`` means all."""
        query = select(jobs).order_by(jobs.c.seq.desc() if newest_first else jobs.c.seq)
        wanted = [state.value for state in states]
        if wanted:
            query = query.where(jobs.c.state.in_(wanted))
        if campaign_id is not None:
            query = query.where(jobs.c.campaign_id == campaign_id)
        if ids is not None:
            query = query.where(jobs.c.id.in_(set(ids)))
        if limit is not None:
            query = query.limit(limit)
        with self._read() as connection:
            return self._readable(connection.execute(query).mappings())

    def unpublished(self, limit: int, before: int | None = None) -> list[JobRow]:
        """Ended jobs that had an attempt and whose run is not known to be complete in MLflow, the newest first.

        Args:
            before: Only those with a smaller ``seq``, the next page; None: from the newest on.
        """
        ended = [state.value for state in JobState if state.is_terminal]
        query = (
            select(jobs)
            .where(jobs.c.state.in_(ended), jobs.c.published.is_(False), jobs.c.started_at.is_not(None))
            .order_by(jobs.c.seq.desc())
            .limit(limit)
        )
        if before is not None:
            query = query.where(jobs.c.seq < before)
        with self._read() as connection:
            return self._readable(connection.execute(query).mappings())

    def attempts(self, job_ids: Iterable[str]) -> dict[str, list[AttemptRow]]:
        """Attempts of jobs, oldest first, by job id."""
        wanted = set(job_ids)
        found: dict[str, list[AttemptRow]] = {job_id: [] for job_id in wanted}
        query = select(attempts).where(attempts.c.job_id.in_(wanted)).order_by(attempts.c.token)
        with self._read() as connection:
            for row in connection.execute(query).mappings():
                found[row["job_id"]].append(attempt_row(row))
        return found

    def active(self) -> list[tuple[JobRow, AttemptRow]]:
        """Every attempt that may hold resources, with its job, oldest first."""
        alive = [state.value for state in ACTIVE]
        with self._read() as connection:
            query = select(attempts).where(attempts.c.state.in_(alive)).order_by(attempts.c.token)
            rows = [attempt_row(row) for row in connection.execute(query).mappings()]
            found = connection.execute(select(jobs).where(jobs.c.id.in_({row.job_id for row in rows}))).mappings()
            by_id = {job.id: job for job in self._readable(found)}
        return [(by_id[row.job_id], row) for row in rows if row.job_id in by_id]

    def events(self, job_id: str) -> list[EventRow]:
        """The decisions about one job, oldest first."""
        query = select(events).where(events.c.job_id == job_id).order_by(events.c.seq)
        with self._read() as connection:
            return [EventRow(**row) for row in connection.execute(query).mappings()]

    def _job(self, connection: Connection, job_id: str, *, lock: bool = False) -> JobRow:
        query = select(jobs).where(jobs.c.id == job_id)
        found = connection.execute(query.with_for_update() if lock else query).mappings().first()
        if found is None:
            raise NotFound(f"no job {job_id!r}; `prunus list` shows them")
        return _readable_job(found)

    def _readable(self, rows: Iterable[Mapping[Any, Any]]) -> list[JobRow]:
        """Leave out, and tell once, what cannot be read: one bad row must not hide or hold up all other jobs."""
        found = []
        for row in rows:
            try:
                found.append(_readable_job(row))
            except NotFound as error:
                if row["id"] not in self._told:
                    log.error("job=%s left out: %s", row["id"], error)
                    self._told.add(row["id"])
        return found


def _readable_job(row: Mapping[Any, Any]) -> JobRow:
    try:
        return job_row(row)
    except ValueError as error:
        raise NotFound(
            f"job {row['name']} ({row['id']}, {row['state']}) is stored, but cannot be read; another release of prunus "
            f"may have written it: use that one, or submit the job again ({error})"
        ) from error
