"""The read side of the store: every question about jobs, attempts, campaigns and decisions. Writes nothing."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from prunus.service.errors import NotFound, Refused, StoreError
from prunus.service.states import ACTIVE
from prunus.service.store.database import Database
from prunus.service.store.rows import (
    AttemptRow,
    CampaignCounts,
    CampaignRow,
    EventRow,
    JobRow,
    attempt_row,
    campaign_row,
    job_row,
)
from prunus.service.store.tables import attempts, campaigns, events, idempotency, jobs
from prunus.service.wire import JobState

log = logging.getLogger(__name__)


class StoreReader:
    """Questions to the database. Usable from several threads.

    Args:
        database: An open database; ``close`` closes it.
        clock: Gives Unix seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._told: set[str] = set()
        """Jobs of which the log says that they cannot be read."""

    def close(self) -> None:
        """Give the database back."""
        self._database.close()

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

    def find_campaign(self, ref: str) -> CampaignRow:
        """Return a campaign by its id or its name (the newest).

        Raises:
            NotFound: There is none.
        """
        query = (
            select(campaigns)
            .where((campaigns.c.id == ref) | (campaigns.c.name == ref))
            .order_by(campaigns.c.created_at.desc(), campaigns.c.id.desc())
            .limit(1)
        )
        with self._read() as connection:
            found = connection.execute(query).mappings().first()
        if found is None:
            raise NotFound(f"no campaign {ref!r}; `prunus campaigns` shows them, `prunus list` jobs with theirs")
        return campaign_row(found)

    def campaigns(self, ids: Iterable[str]) -> dict[str, CampaignRow]:
        """Campaigns by id."""
        query = select(campaigns).where(campaigns.c.id.in_(set(ids)))
        with self._read() as connection:
            return {row["id"]: campaign_row(row) for row in connection.execute(query).mappings()}

    def newest_campaigns(self, limit: int) -> list[CampaignRow]:
        """Campaigns, newest first; a job that was submitted alone and without one is none."""
        several = select(jobs.c.campaign_id).group_by(jobs.c.campaign_id).having(func.count() > 1)
        query = (
            select(campaigns)
            .where(campaigns.c.name.is_not(None) | campaigns.c.id.in_(several))
            .order_by(campaigns.c.created_at.desc(), campaigns.c.id.desc())
            .limit(limit)
        )
        with self._read() as connection:
            return [campaign_row(row) for row in connection.execute(query).mappings()]

    def counts(self, campaign_ids: Iterable[str]) -> dict[str, CampaignCounts]:
        """How many jobs of each campaign are in which state."""
        query = (
            select(
                jobs.c.campaign_id,
                jobs.c.state,
                func.count().label("number"),
                func.max(jobs.c.finished_at).label("last"),
            )
            .where(jobs.c.campaign_id.in_(set(campaign_ids)))
            .group_by(jobs.c.campaign_id, jobs.c.state)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
        by_state: dict[str, dict[JobState, int]] = defaultdict(dict)
        last: dict[str, float] = defaultdict(float)
        for row in rows:
            by_state[row.campaign_id][JobState(row.state)] = row.number
            last[row.campaign_id] = max(last[row.campaign_id], row.last or 0.0)
        return {
            campaign_id: CampaignCounts(counts, last[campaign_id] if all(s.is_terminal for s in counts) else None)
            for campaign_id, counts in by_state.items()
        }

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

    def unsettled_campaigns(self, limit: int) -> list[CampaignRow]:
        """Campaigns whose jobs have all ended, those that ran with all they logged in MLflow, the oldest first; without
        those whose end MLflow knows.
        """
        ended = [state.value for state in JobState if state.is_terminal]
        owed = jobs.c.started_at.is_not(None) & jobs.c.published.is_(False)
        open_ones = select(jobs.c.campaign_id).where(jobs.c.state.not_in(ended) | owed)
        query = (
            select(campaigns)
            .where(campaigns.c.settled.is_(False), campaigns.c.id.not_in(open_ones))
            .order_by(campaigns.c.created_at, campaigns.c.id)
            .limit(limit)
        )
        with self._read() as connection:
            return [campaign_row(row) for row in connection.execute(query).mappings()]

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

    def campaign_of_key(self, key: str, body_sha256: str) -> str | None:
        """Id of the campaign that was queued with this idempotency key; raises as ``add_campaign`` does."""
        with self._read() as connection:
            return self._same_key(connection, key, body_sha256)

    def _same_key(self, connection: Connection, key: str, body_sha256: str) -> str | None:
        found = connection.execute(select(idempotency).where(idempotency.c.key == key)).mappings().first()
        if found is None:
            return None
        if found["body_sha256"] != body_sha256:
            raise Refused(f"the idempotency key {key!r} was used for another campaign; choose a new key")
        return str(found["campaign_id"])

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

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._translated(), self._database.engine.connect() as connection, connection.begin():
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


def _readable_job(row: Mapping[Any, Any]) -> JobRow:
    try:
        return job_row(row)
    except ValueError as error:
        raise NotFound(
            f"job {row['name']} ({row['id']}, {row['state']}) is stored, but cannot be read; another release of prunus "
            f"may have written it: use that one, or submit the job again ({error})"
        ) from error
