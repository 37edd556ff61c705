"""The demo's campaigns: queued, or found again, and followed together."""

import hashlib
from collections.abc import Sequence

from prunus.configs import Campaign
from prunus.service.cli.terminal import note, stdout
from prunus.service.cli.waiting.wait import follow
from prunus.service.client import Client
from prunus.service.wire import CampaignView, JobState, JobView

POLL_S = 2.0
"""Looking is work for the same two cores: 3% of one at a look a second, here and in the server each."""


def run_campaigns(client: Client, campaigns: Sequence[Campaign]) -> list[list[JobView]]:
    """Queue the campaigns, or find them again, and follow them together; the jobs of each, none of one that did not
    succeed whole.
    """
    groups = [[job.id for job in submit_or_reuse(client, campaign).jobs] for campaign in campaigns]
    ids = [job_id for group in groups for job_id in group]
    seen = follow(client, ids, stdout(), note, poll_s=POLL_S)
    jobs = {job.id: job for job in seen}
    for job in jobs.values():
        if job.state is not JobState.SUCCEEDED:
            note(f"{job.name} is {job.state.value}: {job.why}")
    followed = [[jobs[job_id] for job_id in group] for group in groups]
    return [group if all(job.state is JobState.SUCCEEDED for job in group) else [] for group in followed]


def submit_or_reuse(client: Client, campaign: Campaign) -> CampaignView:
    """Queue the campaign, or find the one that was queued for the same specs; a failed one is queued anew."""
    digest = hashlib.sha256(campaign.model_dump_json().encode()).hexdigest()[:32]
    for run in range(1, 100):
        view = client.submit(campaign, f"demo-{digest}-{run}")
        ended_badly = {JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED}
        if not any(job.state in ended_badly for job in view.jobs):
            return view
    return client.submit(campaign)
