"""What an artifact holds: the files that a fetch brings, by the names in its manifest."""

from pathlib import Path

from prunus.configs import ConfigError
from prunus.configs.artifacts.layout import JobDirectory
from prunus.configs.artifacts.manifest import MANIFEST, Manifest, read_manifest, safe_relative, sha256_file
from prunus.configs.values.sources import source_kind
from prunus.service.errors import NotFound
from prunus.service.settings import Settings
from prunus.service.sources.registry import Registry, follow_alias
from prunus.service.store.rows import JobRow
from prunus.service.store.store import Store
from prunus.service.wire import ArtifactView, FileView


class Artifacts:
    """Finds artifacts of jobs, and of models in the registry, on the shared storage."""

    def __init__(self, store: Store, settings: Settings, registry: Registry) -> None:
        self._store = store
        self._settings = settings
        self._registry = registry

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
        entry = follow_alias(self._registry, source)
        if entry.job_id is None:
            raise NotFound(f"{source} is run {entry.run_id}, which no job of this server made; fetch it from MLflow")
        return self._store.job(entry.job_id)

    def _manifest(self, job: JobRow) -> tuple[Path, Manifest]:
        root = JobDirectory(self._settings.job_directory(job.id)).artifacts
        try:
            return root, read_manifest(root)
        except ConfigError as error:
            raise NotFound(f"job {job.name} ({job.id}, {job.state}) has no artifact: {error}") from error
