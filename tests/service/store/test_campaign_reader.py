"""Campaigns found, listed and counted."""

from prunus.configs import StopReason
from prunus.service.store.rows import CampaignCounts, CampaignRow, NewJob
from prunus.service.store.store import Store
from prunus.service.wire import JobState
from tests.service.store.queue import add
from tests.service.world import Clock, make_spec


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
