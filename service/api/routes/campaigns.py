"""``/v1/campaigns``: submit, list, show, cancel."""

from typing import Annotated

from fastapi import APIRouter, Header, Query

from prunus.service.api.parts import Asked
from prunus.service.wire import CampaignCancelled, CampaignSummary, CampaignView, Submission

router = APIRouter(prefix="/v1/campaigns")


@router.post("")
def submit(
    parts: Asked, submission: Submission, idempotency_key: Annotated[str | None, Header(max_length=200)] = None
) -> CampaignView:
    """Queue the jobs of a campaign, all or none."""
    campaign_id = parts.submitter.submit(submission.campaign, idempotency_key)
    parts.wake()
    return parts.views.campaign(parts.store.find_campaign(campaign_id))


@router.get("")
def campaigns(parts: Asked, limit: Annotated[int, Query(ge=1, le=10_000)] = 100) -> list[CampaignSummary]:
    """List campaigns, newest first."""
    return parts.views.campaigns(limit)


@router.get("/{ref}")
def campaign(parts: Asked, ref: str) -> CampaignView:
    """Show a campaign with its jobs."""
    return parts.views.campaign(parts.store.find_campaign(ref))


@router.post("/{ref}/cancel")
def cancel_campaign(parts: Asked, ref: str) -> CampaignCancelled:
    """Ask for the end of all jobs of a campaign."""
    row = parts.store.find_campaign(ref)
    cancelled = parts.store.cancel_campaign(row.id, "cancelled by a user, with its campaign")
    parts.wake()
    return CampaignCancelled(cancelled=tuple(cancelled), campaign=parts.views.campaign(row))
