"""References to files: what ``job:``, ``models:/``, directories and hub ids mean right now.

The registry is reached through a small protocol, so that MLflow is imported where the server is put together only.
"""

import logging
from pathlib import Path

from prunus.configs import ConfigError, ResolvedSource
from prunus.configs.artifacts.layout import JobDirectory
from prunus.configs.artifacts.manifest import MANIFEST, read_manifest, sha256_file
from prunus.configs.values.sources import source_kind
from prunus.service.errors import NotFound, Refused
from prunus.service.settings import Settings
from prunus.service.sources.registry import Registry, follow_alias
from prunus.service.store.rows import JobRow
from prunus.service.store.store import Store
from prunus.service.wire import JobState

log = logging.getLogger(__name__)


class Sources:
    """Resolves references against the store, the shared storage and the registry."""

    def __init__(self, store: Store, settings: Settings, registry: Registry) -> None:
        self._store = store
        self._settings = settings
        self._registry = registry

    def resolve_all(self, job: JobRow) -> dict[str, ResolvedSource]:
        """Resolve every source of a job, by role.

        Raises:
            Refused: One cannot be used: the job cannot start, now or later.
            NotFound: One does not exist.
            Unreachable: The registry does not answer: try again later.
        """
        return {role: self._resolve(job, reference) for role, reference in job.spec.sources.items()}

    def _resolve(self, job: JobRow, reference: str) -> ResolvedSource:
        kind = source_kind(reference)
        if kind == "job":
            name = reference.removeprefix("job:")
            return self._of_job(reference, self._store.job(job.references.get(name, name)))
        if kind == "registry":
            return self._of_registry(reference)
        if kind == "hub":
            return ResolvedSource(reference=reference, kind="hub", location=reference)
        return self._of_directory(reference)

    def _of_job(self, reference: str, parent: JobRow) -> ResolvedSource:
        if parent.state is not JobState.SUCCEEDED:
            raise Refused(f"{reference} is {parent.id}, which is {parent.state}; only a job that succeeded can be used")
        root = JobDirectory(self._settings.job_directory(parent.id)).artifacts
        try:
            read_manifest(root)
        except ConfigError as error:
            raise Refused(f"{reference} is {parent.id}, whose artifact cannot be used: {error}") from error
        digest = sha256_file(root / MANIFEST)
        if parent.manifest_sha256 not in {None, digest}:
            raise Refused(
                f"{reference} is {parent.id}, whose manifest has changed since it was made (sha256 {digest[:12]}…, "
                f"was {str(parent.manifest_sha256)[:12]}…): damaged or tampered with; run {parent.name} again"
            )
        return ResolvedSource(reference=reference, kind="artifact", location=str(root), manifest_sha256=digest)

    def _of_registry(self, reference: str) -> ResolvedSource:
        entry = follow_alias(self._registry, reference)
        if entry.job_id is not None:
            try:
                return self._of_job(reference, self._store.job(entry.job_id))
            except NotFound:
                log.info("%s was made by job %s, which this server does not know", reference, entry.job_id)
        return ResolvedSource(reference=reference, kind="run", location=entry.run_id)

    def _of_directory(self, reference: str) -> ResolvedSource:
        path = Path(reference).expanduser()
        if (path / MANIFEST).is_file():
            digest = sha256_file(path / MANIFEST)
            return ResolvedSource(reference=reference, kind="artifact", location=str(path), manifest_sha256=digest)
        if self._settings.embedded and not path.is_dir():
            raise Refused(f"the directory {reference} does not exist; mend model.from, teacher or mask")
        return ResolvedSource(reference=reference, kind="directory", location=str(path))
