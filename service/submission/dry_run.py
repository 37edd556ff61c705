"""What can be checked of a campaign on this machine, before it is submitted, and what cannot."""

from prunus.configs import Campaign, ConfigError, RecipeErrors
from prunus.configs.values.sources import source_kind
from prunus.service.submission.local_files import missing_by_jobs

_SHOWN = 5
"""Files that are not here, before the rest is only counted."""


def check_local_files(campaign: Campaign, file: str) -> None:
    """Refuse data files and model directories that this machine does not have.

    Only right where server and ranks run on this machine, or share its file system.

    Raises:
        ConfigError: Something is missing; RecipeErrors for several.
    """
    errors = [
        ConfigError(missing.what, path=f"{jobs}: {missing.place}", file=file, remedy=missing.remedy)
        for missing, jobs in missing_by_jobs(campaign.jobs).items()
    ]
    if errors:
        raise errors[0] if len(errors) == 1 else RecipeErrors(errors)


def not_here(campaign: Campaign) -> list[str]:
    """Say what this machine does not have; a cluster elsewhere may have it, so that is no mistake yet."""
    found = [f"{jobs}: {gone.place}: {gone.what}" for gone, jobs in missing_by_jobs(campaign.jobs).items()]
    more = len(found) - _SHOWN
    return [*found[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]


def unchecked(campaign: Campaign) -> list[str]:
    """Name what only the server, the cluster or the hub can tell: references that lead out of the file, and room."""
    inside = {job.name for job in campaign.jobs}
    what = {
        "job": "an earlier job",
        "registry": "in the model registry",
        "directory": "a directory",
        "hub": "on the hub",
    }
    found = [
        f"{reference} ({what[kind]})"
        for job in campaign.jobs
        for reference in job.sources.values()
        if (kind := source_kind(reference)) != "job" or reference.removeprefix("job:") not in inside
    ]
    return [*dict.fromkeys(found), "the data", "whether the cluster has room"]
