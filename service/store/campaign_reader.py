"""Questions about campaigns: found, listed, counted, settled. Writes nothing."""

from collections import defaultdict
from collections.abc import Iterable

from sqlalchemy import Connection, func, select

from prunus.service.errors import NotFound, Refused
from prunus.service.store.rows import CampaignCounts, CampaignRow, campaign_row
from prunus.service.store.tables import campaigns, idempotency, jobs
from prunus.service.store.transactions import Transactions
from prunus.service.wire import JobState


class CampaignReader(Transactions):
    """Questions about campaigns."""

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
