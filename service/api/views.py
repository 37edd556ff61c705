"""Rows of the store as what travels over HTTP. Decides nothing, changes nothing."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from prunus.configs import JobSpec
from prunus.service.store.rows import AttemptRow, CampaignCounts, CampaignRow, JobRow
from prunus.service.store.store import Store
from prunus.service.wire import AttemptView, CampaignSummary, CampaignView, JobDetail, JobState, JobView


class Views:
    """Builds the API's answers.

    Args:
        store: Where from.
        run_url: Gives the address of an MLflow run, or None.
    """

    def __init__(self, store: Store, run_url: Callable[[str], str | None]) -> None:
        self._store = store
        self._run_url = run_url

    def jobs(self, campaign: str | None, states: Iterable[JobState], limit: int) -> list[JobView]:
        """Jobs, newest first; raises NotFound for an unknown campaign."""
        campaign_id = None if campaign is None else self._store.find_campaign(campaign).id
        return self._of(self._store.jobs(states, campaign_id, limit=limit, newest_first=True))

    def job(self, ref: str) -> JobDetail:
        """One job with its spec; raises NotFound."""
        row = self._store.find_job(ref)
        return JobDetail(**dict(self.of(row)), spec=row.spec)

    def of(self, row: JobRow) -> JobView:
        """One job."""
        return self._of([row])[0]

    def campaign(self, row: CampaignRow) -> CampaignView:
        """A campaign with its jobs, parents first."""
        jobs = self._of(self._store.jobs(campaign_id=row.id))
        (summary,) = self._summaries([row])
        return CampaignView(**dict(summary), jobs=tuple(jobs))

    def campaigns(self, limit: int) -> list[CampaignSummary]:
        """Campaigns, newest first."""
        return self._summaries(self._store.newest_campaigns(limit))

    def _summaries(self, rows: Sequence[CampaignRow]) -> list[CampaignSummary]:
        counted = self._store.counts(row.id for row in rows)
        steps: dict[str, float] = defaultdict(float)
        for job, attempt in self._store.active():
            steps[job.campaign_id] += _share_of_steps(attempt)
        return [_summary(row, counted.get(row.id, CampaignCounts({}, None)), steps[row.id]) for row in rows]

    def _of(self, rows: Sequence[JobRow]) -> list[JobView]:
        attempts = self._store.attempts(row.id for row in rows)
        campaigns = self._store.campaigns(row.campaign_id for row in rows)
        return [self._view(row, attempts[row.id], campaigns[row.campaign_id].name) for row in rows]

    def _view(self, row: JobRow, attempts: list[AttemptRow], campaign_name: str | None) -> JobView:
        return JobView(
            id=row.id,
            name=row.name,
            campaign_id=row.campaign_id,
            campaign_name=campaign_name,
            state=row.state,
            why=row.why,
            method=row.spec.method.name if isinstance(row.spec, JobSpec) else "",
            task=row.spec.task.name if isinstance(row.spec, JobSpec) else "comparison",
            parents=row.parents,
            num_ranks=row.spec.resources.num_ranks,
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
            attempts=tuple(_attempt_view(attempt) for attempt in attempts),
            progress=attempts[-1].progress if attempts else None,
            metrics=dict(row.metrics),
            run_id=row.run_id,
            run_url=self._run_url(row.run_id) if row.run_id else None,
            published=row.published,
            bytes_on_disk=row.bytes_on_disk,
        )


def _summary(row: CampaignRow, counted: CampaignCounts, steps: float) -> CampaignSummary:
    num_jobs = sum(counted.by_state.values())
    ended = sum(number for state, number in counted.by_state.items() if state.is_terminal)
    return CampaignSummary(
        id=row.id,
        name=row.name,
        created_at=row.created_at,
        finished_at=counted.finished_at,
        max_parallel=row.max_parallel,
        num_jobs=num_jobs,
        counts=dict(counted.by_state),
        progress=min(1.0, (ended + steps) / num_jobs) if num_jobs else 0.0,
    )


def _share_of_steps(attempt: AttemptRow) -> float:
    progress = attempt.progress
    if progress is None or not progress.num_steps:
        return 0.0
    return min(1.0, progress.step / progress.num_steps)


def _attempt_view(row: AttemptRow) -> AttemptView:
    return AttemptView(
        attempt_id=row.id,
        number=row.number,
        state=row.state,
        reason=row.reason,
        message=row.message,
        started_at=row.started_at or row.submitted_at,
        finished_at=row.finished_at,
    )
