"""References to files: what ``job:``, ``models:/``, directories and hub ids mean right now, and what an artifact holds.

The registry is reached through a small protocol, so that MLflow is imported where the server is put together only.
"""

import logging
from pathlib import Path

from prunus.configs import ConfigError, ResolvedSource
from prunus.configs.artifacts.layout import JobDirectory
from prunus.configs.artifacts.manifest import MANIFEST, Manifest, read_manifest, safe_relative, sha256_file
from prunus.configs.values.sources import source_kind
from prunus.service.errors import NotFound, Refused
from prunus.service.settings import Settings
from prunus.service.sources.registry import Registry, RegistryEntry
from prunus.service.store.rows import JobRow
from prunus.service.store.store import Store
from prunus.service.wire import ArtifactView, FileView, JobState

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

    def listing(self, source: str) -> ArtifactView:
        """List what a fetch of ``source`` brings: the manifest's files, by their names in it.

        Args:
            source: ``job:REF`` or ``models:/NAME@ALIAS``.

        Raises:
            NotFound: No such job or alias, or the job left no artifact (yet).
        """
        job = self._owner(source)
        root, manifest = self._manifest(job)
        return ArtifactView(
            source=source,
            job_id=job.id,
            job_name=job.name,
            manifest_sha256=sha256_file(root / MANIFEST),
            files=tuple(
                FileView(path=name, size=entry.size, sha256=entry.sha256)
                for name, entry in sorted(manifest.files.items())
            ),
        )

    def file(self, source: str, path: str) -> tuple[Path, str]:
        """Find one file of an artifact, and nothing else.

        Returns:
            Its place and its digest.

        Raises:
            NotFound: The manifest does not name it, or it is not a plain file inside the artifact.
        """
        root, manifest = self._manifest(self._owner(source))
        try:
            relative = safe_relative(path)
        except ConfigError as error:
            raise NotFound(f"{source} has no file {path!r}; its manifest names what there is") from error
        place = root / relative
        is_manifest = path == MANIFEST
        inside = not place.is_symlink() and place.is_file() and place.resolve() == root.resolve() / relative
        if not (is_manifest or path in manifest.files) or not inside:
            raise NotFound(f"{source} has no file {path!r}; its manifest names what there is")
        return place, sha256_file(place) if is_manifest else manifest.files[path].sha256

    def _owner(self, source: str) -> JobRow:
        if source.startswith("job:"):
            return self._store.find_job(source.removeprefix("job:"))
        try:
            kind = source_kind(source)
        except ValueError as error:
            raise NotFound(str(error)) from error
        if kind != "registry":
            raise NotFound(f"{source!r} is no artifact of this server; write job:NAME or models:/NAME@ALIAS")
        entry = self._look_up(source)
        if entry.job_id is None:
            raise NotFound(f"{source} is run {entry.run_id}, which no job of this server made; fetch it from MLflow")
        return self._store.job(entry.job_id)

    def _manifest(self, job: JobRow) -> tuple[Path, Manifest]:
        root = JobDirectory(self._settings.job_directory(job.id)).artifacts
        try:
            return root, read_manifest(root)
        except ConfigError as error:
            raise NotFound(f"job {job.name} ({job.id}, {job.state}) has no artifact: {error}") from error

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
        entry = self._look_up(reference)
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

    def _look_up(self, reference: str) -> RegistryEntry:
        name, _, alias = reference.removeprefix("models:/").partition("@")
        return self._registry.look_up(name, alias)
