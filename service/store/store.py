"""The truth about jobs: every write of the database, each one transaction; what reads is in ``job_reader``.

A transition is guarded: it happens only if the job is still in the state that the decision was made from. Every
transition and every new reason to wait leaves an event in the same transaction. No decisions here.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from prunus.configs import Progress, StopReason
from prunus.service.errors import StaleTransition
from prunus.service.states import ACTIVE, WAITING, check_transition
from prunus.service.store.job_reader import JobReader
from prunus.service.store.rows import AttemptRow, CampaignRow, JobRow, NewJob, attempt_row
from prunus.service.store.tables import attempts, campaigns, events, idempotency, jobs
from prunus.service.wire import JobState


class Store(JobReader):
    """Jobs, attempts and the decision log. Usable from several threads."""

    # ---- submission

    def add_campaign(
        self,
        row: CampaignRow,
        labels: Mapping[str, str],
        new_jobs: Sequence[NewJob],
        key: str | None = None,
        body_sha256: str = "",
    ) -> str:
        """Queue jobs, all or none.

        Returns:
            Id of the campaign: ``row.id``, or that of the first submission with the same ``key``.

        Raises:
            Refused: The key was used for another body.
        """
        try:
            with self._write() as connection:
                if key is not None and (earlier := self._same_key(connection, key, body_sha256)):
                    return earlier
                self._insert_campaign(connection, row, labels, new_jobs)
                if key is not None:
                    connection.execute(
                        insert(idempotency).values(
                            key=key, body_sha256=body_sha256, campaign_id=row.id, created_at=row.created_at
                        )
                    )
        except IntegrityError:
            # On PostgreSQL two posts with one key may both have looked; the loser finds the winner's answer.
            earlier = self.campaign_of_key(key, body_sha256) if key is not None else None
            if earlier is None:
                raise
            return earlier
        return row.id

    def _insert_campaign(
        self, connection: Connection, row: CampaignRow, labels: Mapping[str, str], new_jobs: Sequence[NewJob]
    ) -> None:
        connection.execute(
            insert(campaigns).values(
                id=row.id,
                name=row.name,
                labels=json.dumps(dict(labels)),
                created_at=row.created_at,
                max_parallel=row.max_parallel,
            )
        )
        for job in new_jobs:
            connection.execute(
                insert(jobs).values(
                    id=job.id,
                    campaign_id=row.id,
                    name=job.spec.name,
                    state=job.state.value,
                    why=job.why,
                    spec=job.spec.model_dump_json(by_alias=True),
                    parents=json.dumps(job.parents),
                    job_references=json.dumps(dict(job.references)),
                    created_at=row.created_at,
                    published=False,
                    metrics="{}",
                )
            )
            self._log(connection, job.id, None, "submitted", job.why)

    # ---- writing

    def transition(self, job: JobRow, new: JobState, why: str, **columns: Any) -> None:
        """Move a job on.

        Raises:
            StaleTransition: It has left ``job.state`` meanwhile; nothing was written.
        """
        with self._write() as connection:
            self._move(connection, job.id, job.state, new, why, columns)
            self._log(connection, job.id, None, new.value.lower(), why)

    def set_why(self, job: JobRow, why: str) -> None:
        """Note why a job stays where it is. The same reason again writes nothing."""
        if why == job.why:
            return
        with self._write() as connection:
            changed = connection.execute(
                update(jobs).where(jobs.c.id == job.id, jobs.c.state == job.state.value).values(why=why)
            )
            if changed.rowcount:
                self._log(connection, job.id, None, "waits", why)

    def begin_attempt(self, job: JobRow, placement: Sequence[str], why: str) -> AttemptRow:
        """QUEUED -> STARTING with a new attempt: the intent, committed before Ray hears of it.

        Raises:
            StaleTransition: The job is not queued any more; there is no attempt.
        """
        now = self._clock()
        with self._write() as connection:
            self._move(connection, job.id, job.state, JobState.STARTING, why, {"started_at": job.started_at or now})
            numbers = connection.scalars(select(attempts.c.number).where(attempts.c.job_id == job.id))
            number = max(numbers, default=0) + 1
            attempt_id = f"{job.id}-a{number}"
            connection.execute(
                insert(attempts).values(
                    id=attempt_id,
                    job_id=job.id,
                    number=number,
                    state=JobState.STARTING.value,
                    message="",
                    placement=json.dumps(list(placement)),
                    created_at=now,
                    ray_reads=0,
                )
            )
            self._log(connection, job.id, attempt_id, "attempt", why)
            row = connection.execute(select(attempts).where(attempts.c.id == attempt_id)).mappings().one()
            return attempt_row(row)

    def note(self, attempt: AttemptRow, **columns: Any) -> None:
        """Write observations about a live attempt: no state, no event."""
        if isinstance(columns.get("progress"), Progress):
            columns["progress"] = columns["progress"].model_dump_json()
        with self._write() as connection:
            connection.execute(update(attempts).where(attempts.c.token == attempt.token).values(**columns))

    def mark_running(self, job: JobRow, attempt: AttemptRow, why: str) -> None:
        """STARTING -> RUNNING of a job and its attempt; raises ``StaleTransition``."""
        with self._write() as connection:
            self._move(connection, job.id, job.state, JobState.RUNNING, why, {})
            self._set_attempt(connection, attempt, state=JobState.RUNNING.value, started_at=self._clock())
            self._log(connection, job.id, attempt.id, "running", why)

    def request_stop(self, job_id: str, reason: StopReason, why: str) -> JobRow:
        """Ask for the end of a job: at once while it waits, else CANCELLING. An ended or ending job is left alone.

        Raises:
            NotFound: There is no such job.
        """
        with self._write() as connection:
            job = self._job(connection, job_id, lock=True)
            self._stop(connection, job_id, job.state, reason, why)
            return self._job(connection, job_id)

    def cancel_campaign(self, campaign_id: str, why: str) -> list[str]:
        """Ask for the end of all jobs of a campaign that have not ended, in one transaction: none starts meanwhile, and
        none is skipped because of another.

        Returns:
            Ids of the jobs that were ended or asked to stop now, in the order of the queue; a repeat gives none.
        """
        query = select(jobs.c.id, jobs.c.state).where(jobs.c.campaign_id == campaign_id).order_by(jobs.c.seq)
        with self._write() as connection:
            found = connection.execute(query.with_for_update()).all()
            return [
                row.id
                for row in found
                if self._stop(connection, row.id, JobState(row.state), StopReason.CANCELLED, why)
            ]

    def end_attempt(
        self,
        job: JobRow,
        attempt: AttemptRow,
        reason: StopReason,
        state: JobState,
        new: JobState,
        message: str,
        why: str,
        **columns: Any,
    ) -> None:
        """Close an attempt and move its job on, together.

        Args:
            reason: Why the attempt ended.
            state: Final state of the attempt.
            new: State of the job: final, or QUEUED for another attempt.
            columns: More of the job's columns.

        Raises:
            StaleTransition: The job has moved meanwhile; nothing was written.
        """
        now = self._clock()
        with self._write() as connection:
            finished = {"finished_at": now} if new.is_terminal else {}
            self._move(connection, job.id, job.state, new, why, {**finished, **columns})
            self._set_attempt(
                connection, attempt, state=state.value, reason=reason.value, message=message, finished_at=now
            )
            self._log(connection, job.id, attempt.id, new.value.lower(), why)

    def mark_published(self, job: JobRow, run_id: str | None, why: str) -> None:
        """Note that MLflow has all of an ended job. A second time writes nothing."""
        with self._write() as connection:
            changed = connection.execute(
                update(jobs)
                .where(jobs.c.id == job.id, jobs.c.published.is_(False))
                .values(published=True, run_id=run_id or job.run_id)
            )
            if changed.rowcount:
                self._log(connection, job.id, None, "published", why)

    def mark_settled(self, campaign_id: str) -> None:
        """Note that MLflow knows how a campaign ended."""
        with self._write() as connection:
            connection.execute(update(campaigns).where(campaigns.c.id == campaign_id).values(settled=True))

    def log_event(self, job_id: str, attempt_id: str | None, kind: str, message: str) -> None:
        """Add to the decision log what is no transition."""
        with self._write() as connection:
            self._log(connection, job_id, attempt_id, kind, message)

    # ---- inside a transaction

    def _move(
        self, connection: Connection, job_id: str, old: JobState, new: JobState, why: str, columns: Mapping[str, Any]
    ) -> None:
        check_transition(old, new)
        values = dict(columns)
        if "metrics" in values:
            values["metrics"] = json.dumps(values["metrics"])
        moved = connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.state == old.value)
            .values(state=new.value, why=why, **values)
        )
        if moved.rowcount != 1:
            raise StaleTransition(f"job {job_id} is not {old} any more; {old} -> {new} was dropped")

    def _stop(self, connection: Connection, job_id: str, state: JobState, reason: StopReason, why: str) -> bool:
        """End a waiting job, ask a running one to end; False: it ends, or has ended, already."""
        if state in WAITING:
            self._move(connection, job_id, state, JobState.CANCELLED, why, {"finished_at": self._clock()})
            self._log(connection, job_id, None, "cancelled", why)
            return True
        if state not in ACTIVE or state is JobState.CANCELLING:
            return False
        self._move(connection, job_id, state, JobState.CANCELLING, why, {})
        connection.execute(
            update(attempts)
            .where(attempts.c.job_id == job_id, attempts.c.finished_at.is_(None))
            .values(state=JobState.CANCELLING.value, stop_reason=reason.value)
        )
        self._log(connection, job_id, None, "stop", why)
        return True

    def _set_attempt(self, connection: Connection, attempt: AttemptRow, **values: Any) -> None:
        changed = connection.execute(
            update(attempts).where(attempts.c.token == attempt.token, attempts.c.finished_at.is_(None)).values(**values)
        )
        if changed.rowcount != 1:
            raise StaleTransition(f"attempt {attempt.id} has ended already; the decision was dropped")

    def _log(self, connection: Connection, job_id: str, attempt_id: str | None, kind: str, message: str) -> None:
        connection.execute(
            insert(events).values(time=self._clock(), job_id=job_id, attempt_id=attempt_id, kind=kind, message=message)
        )
