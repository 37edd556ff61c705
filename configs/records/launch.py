"""What goes in: all that one attempt needs to know."""

from typing import Literal

from pydantic import Field

from prunus.configs.specs.union import AnySpec
from prunus.configs.values.base import Record


class ResolvedSource(Record):
    """A reference after the server looked it up."""

    reference: str
    """As the user wrote it."""
    kind: Literal["artifact", "directory", "hub", "run"]
    """``artifact``: a directory with our manifest; ``directory``: any Hugging Face directory; ``hub``: a hub id;
    ``run``: artifacts of an MLflow run, to be downloaded."""
    location: str
    """A path, a hub id, or an MLflow run id."""
    manifest_sha256: str | None = None
    """Digest of the manifest that the parent job left; the job refuses to start from another."""


class Launch(Record):
    """All that an attempt needs to know; the only input of the process on the cluster."""

    schema_version: int = 1
    prunus_version: str
    """The server's version; the cluster must have the same."""
    job_id: str
    job_name: str
    campaign_id: str | None = None
    campaign_name: str | None = None
    attempt: int
    """1 for the first."""
    attempt_id: str
    """``<job id>-a<attempt>``: id of the Ray Jobs submission."""
    token: str
    """Fencing token: a newer attempt has a larger one (decimal number)."""
    job_dir: str
    """Root of the job's directory on shared storage."""
    cache_dir: str
    """Where tokenised data is cached, on shared storage."""
    spec: AnySpec
    sources: dict[str, ResolvedSource] = Field(default_factory=dict)
    """By role: model, teacher, mask; in a comparison, by what is compared."""
    mlflow_uri: str | None = None
    """None: metrics go to the spool only."""
    mlflow_experiment: str = "prunus"
