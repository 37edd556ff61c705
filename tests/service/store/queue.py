"""Jobs in the store."""

from prunus.service.store.ids import new_ids
from prunus.service.store.rows import CampaignRow, NewJob
from prunus.service.store.store import Store
from prunus.service.wire import JobState
from tests.service.world import make_spec


def add(store: Store, *names: str, campaign: str | None = None, key: str | None = None, body: str = "x") -> str:
    now = 1_800_000_000.0
    ids = new_ids("j", len(names), now)
    jobs = [
        NewJob(job_id, make_spec(name), (), {}, JobState.QUEUED, "waits for its turn")
        for job_id, name in zip(ids, names, strict=True)
    ]
    return store.add_campaign(CampaignRow(new_ids("c", 1, now)[0], campaign, now), {}, jobs, key, body)
