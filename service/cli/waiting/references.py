"""What a reference on the command line means: a job or a campaign."""

from collections.abc import Callable
from dataclasses import dataclass

from prunus.service.cli.waiting.patience import Answer
from prunus.service.client import Client
from prunus.service.errors import NotFound, Refused
from prunus.service.wire import CampaignView, JobDetail, JobState, JobView

MOST_LISTED = 10_000
"""So many jobs the server lists at once."""


@dataclass(frozen=True)
class Target:
    """What a reference means: one job, or a whole campaign."""

    id: str
    """Of the job or the campaign."""
    jobs: tuple[JobView, ...]
    campaign: CampaignView | None = None
    """None: one job was meant."""


def resolve(client: Client, ref: str, *, campaign: bool = False) -> Target:
    """Find the job or the campaign of that reference.

    Args:
        campaign: The reference is a campaign's.

    Raises:
        NotFound: Neither exists.
        Refused: Both exist, so that one command could mean two things.
    """
    job, group = (None, client.campaign(ref)) if campaign else look_up(client, ref)
    if job is not None and group is not None:
        raise Refused(
            f"{ref!r} is a job ({job.id}) and a campaign of {group.num_jobs} jobs ({group.id}); write {group.id}, or "
            f"--campaign {ref}, for the campaign, and {job.id} for the job"
        )
    if group is not None:
        return Target(group.id, group.jobs, group)
    assert job is not None
    return Target(job.id, (job,))


def resolve_active(client: Client, ref: str, *, campaign: bool = False) -> Target:
    """As :func:`resolve`, for what is not to befall the wrong job: a bare name means the one job of that name that has
    not ended.

    Raises:
        Refused: Several jobs of that name have not ended; and as in :func:`resolve`.
    """
    target = resolve(client, ref, campaign=campaign)
    if target.campaign is not None or target.jobs[0].name != ref:
        return target
    going = [
        job
        for job in client.jobs(state=[state for state in JobState if not state.is_terminal], limit=MOST_LISTED)
        if job.name == ref
    ]
    if len(going) > 1:
        known = ", ".join(f"{job.campaign_name or job.campaign_id}/{ref} ({job.id})" for job in going)
        raise Refused(f"{len(going)} jobs named {ref!r} have not ended: {known}; name one of them")
    return Target(going[0].id, (going[0],)) if going else target


def look_up(client: Client, ref: str) -> tuple[JobDetail | None, CampaignView | None]:
    """The job and the campaign of that reference; only the job where it is all of the campaign.

    Raises:
        NotFound: Neither exists.
    """
    job = _unless_missing(lambda: client.job(ref))
    group = _unless_missing(lambda: client.campaign(ref))
    if job is None and group is None:
        raise NotFound(
            f"there is no job and no campaign {ref!r}; `prunus list` and `prunus campaigns` show what there is"
        )
    if job is not None and group is not None and [own.id for own in group.jobs] == [job.id]:
        return job, None
    return job, group


def _unless_missing(ask: Callable[[], Answer]) -> Answer | None:
    try:
        return ask()
    except NotFound:
        return None
