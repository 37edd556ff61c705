"""Several jobs in one file."""

from pydantic import Field

from prunus.configs.specs.base import JobName
from prunus.configs.specs.union import AnySpec
from prunus.configs.values.base import Strict


class Campaign(Strict):
    """Jobs that are submitted together; a single job is a campaign of one without a name."""

    name: JobName | None = None
    """Name of the campaign (in YAML: ``campaign``); null for a single job."""
    labels: dict[str, str] = {}
    """Labels of the campaign."""
    max_parallel: int | None = Field(default=None, ge=1, le=1_000_000)
    """How many of its jobs may hold resources at one time, in [1, 1000000]; null: as many as fit on the cluster."""
    jobs: tuple[AnySpec, ...]
    """In an order in which parents come first."""
