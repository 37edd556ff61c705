"""What a process on the cluster is told about its attempt. Pure but for the campaign's row, which the store gives."""

from collections.abc import Mapping

from prunus.configs import Launch, __version__
from prunus.configs.records.launch import ResolvedSource
from prunus.service.settings import Settings
from prunus.service.store.rows import AttemptRow, CampaignRow, JobRow


def build_launch(
    settings: Settings,
    campaign: CampaignRow,
    job: JobRow,
    attempt: AttemptRow,
    sources: Mapping[str, ResolvedSource],
) -> Launch:
    """Put together the launch of an attempt.

    Args:
        sources: By role, what each reference of the job means now; empty where nothing is read from them.
    """
    return Launch(
        prunus_version=__version__,
        job_id=job.id,
        job_name=job.name,
        campaign_id=campaign.id,
        campaign_name=campaign.name,
        attempt=attempt.number,
        attempt_id=attempt.id,
        token=str(attempt.token),
        job_dir=str(settings.job_directory(job.id)),
        cache_dir=str(settings.cache),
        spec=job.spec,
        sources=dict(sources),
        mlflow_uri=settings.mlflow_uri,
        mlflow_experiment=settings.mlflow_experiment,
    )
