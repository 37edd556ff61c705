"""What all kinds of jobs have in common."""

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from prunus.configs.specs.resources import Resources
from prunus.configs.values.base import Strict
from prunus.configs.values.sources import job_name, source_kind

JobName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$"),
    Field(description="Lower-case letters, digits, dots, dashes and underscores, at most 100."),
]


class JobBase(Strict):
    """What every kind of job has: a name, its place in the campaign, what it needs to run."""

    schema_version: Literal[1] = 1
    """Version of this form of a spec; a server refuses any other."""
    name: JobName
    labels: dict[str, str] = Field(default_factory=dict)
    """Words of your own, name to value; MLflow gets them as tags, and `prunus compare --by` groups by them."""
    after: tuple[JobName, ...] = ()
    """Jobs of the same campaign that must have succeeded first; those named by ``from:`` are added."""
    resources: Resources = Resources()
    """What each rank of the gang holds."""
    timeout_s: float | None = Field(default=None, gt=0.0)
    """Longest running time of one attempt in seconds; None: no limit."""

    needs_gang: ClassVar[bool] = True
    """Whether ranks meet in a process group; a job without one runs in a single process."""

    @property
    @abstractmethod
    def sources(self) -> dict[str, str]:
        """References that must be resolved before the job can start, by role."""

    @property
    def parents(self) -> tuple[str, ...]:
        """Names of the jobs this one reads from, in order of role."""
        return tuple(dict.fromkeys(job_name(s) for s in self.sources.values() if source_kind(s) == "job"))
