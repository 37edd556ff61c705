"""Ends the MLflow run of a campaign, which all runs of its jobs hang under, as the campaign itself ended.

    every job ended, and MLflow has all of those that ran  ->  status of the parent run  ->  noted in the store

Jobs only make that run: they cannot know whether others of the campaign still wait, or were cancelled before they
ran. Called by the publisher's thread, so that an MLflow that is slow or away holds up no scheduling.
"""

import logging
from collections.abc import Mapping

from prunus.service.errors import Unreachable
from prunus.service.sources.registry import Registry
from prunus.service.store.rows import CampaignRow
from prunus.service.store.store import Store
from prunus.service.wire import JobState

log = logging.getLogger(__name__)

_PAGE = 20
"""Campaigns in one step."""


def end_status(counts: Mapping[JobState, int]) -> str:
    """What MLflow calls the end of a campaign: that of its worst job. One that was only skipped failed elsewhere."""
    for state, status in (
        (JobState.FAILED, "FAILED"),
        (JobState.CANCELLED, "KILLED"),
        (JobState.SKIPPED, "FAILED"),
    ):
        if counts.get(state):
            return status
    return "FINISHED"


class CampaignRuns:
    """One per store.

    Args:
        store: Knows which campaigns have ended.
        registry: MLflow.
    """

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store, self._registry = store, registry

    def step(self) -> None:
        """End the runs of campaigns that have ended; what MLflow does not take now is tried at the next step."""
        for campaign in self._store.unsettled_campaigns(_PAGE):
            try:
                self._settle(campaign)
            except Unreachable as error:
                log.info("campaign=%s its run is ended later: %s", campaign.id, error)
                return

    def _settle(self, campaign: CampaignRow) -> None:
        counts = self._store.counts([campaign.id])[campaign.id]
        status = end_status(counts.by_state)
        run_ids = [job.run_id for job in self._store.jobs(campaign_id=campaign.id) if job.run_id]
        found = any(self._registry.end_parent(run_id, status) for run_id in run_ids)
        self._store.mark_settled(campaign.id)
        log.info("campaign=%s %s", campaign.id, f"its run is {status}" if found else "MLflow has no run of it")
