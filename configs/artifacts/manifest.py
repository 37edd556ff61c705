"""The manifest that proves a job's files: sha256 and size of each. Written last; without one there is no artifact."""

import hashlib
from pathlib import Path, PurePosixPath

from pydantic import Field

from prunus.configs.errors import ConfigError
from prunus.configs.values.base import Record

MANIFEST = "manifest.json"


class FileEntry(Record):
    """One file of an artifact."""

    sha256: str
    """64 hexadecimal digits of the file's content."""
    size: int
    """Bytes."""


class Manifest(Record):
    """Every file of an artifact with its digest, and what it was made from."""

    schema_version: int = 1
    job_id: str
    job_name: str
    attempt_id: str
    files: dict[str, FileEntry]
    """POSIX path relative to the manifest -> digest and size."""
    parents: dict[str, str] = Field(default_factory=dict)
    """Role (model, teacher, mask) -> ``REFERENCE sha256:DIGEST`` of that source's manifest, or REFERENCE alone."""
    created_at: str = ""
    """UTC, ISO 8601."""


def safe_relative(path: str) -> PurePosixPath:
    """Check that ``path`` stays below the directory it is joined to.

    Raises:
        ConfigError: Absolute, empty, with ``..``, a backslash, a drive or a control character.
    """
    pure = PurePosixPath(path)
    bad = not pure.parts or pure.is_absolute() or ".." in pure.parts or "\\" in path or ":" in pure.parts[0]
    if bad or any(ord(c) < 32 for c in path):
        raise ConfigError(
            f"a file of the artifact has the path {path!r}, which leads out of it",
            remedy="the source is not one of ours or was tampered with; do not use it",
        )
    return pure


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build_entries(root: Path) -> dict[str, FileEntry]:
    """Digest every file below ``root`` but a manifest at its top."""
    entries = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        if name != MANIFEST:
            entries[name] = FileEntry(sha256=sha256_file(path), size=path.stat().st_size)
    return entries


def read_manifest(root: Path) -> Manifest:
    """Read ``root/manifest.json``.

    Raises:
        ConfigError: Missing, unreadable, or with paths that lead out of ``root``.
    """
    path = root / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{root} has no {MANIFEST}: it was not finished or is not ours", remedy="run the job that makes it"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", remedy="fetch the artifact again") from error
    for name in manifest.files:
        safe_relative(name)
    return manifest


def verify(root: Path, *, prefix: str = "") -> Manifest:
    """Check every file named by the manifest (those below ``prefix``) against size and digest.

    Raises:
        ConfigError: A file is missing or differs.
    """
    manifest = read_manifest(root)
    top = root.resolve()
    for name, entry in manifest.files.items():
        if not name.startswith(prefix):
            continue
        path = root / name
        # A link, also one of a directory above, could show another file to us than to who reads it next.
        if not path.is_file() or path.resolve() != top / safe_relative(name):
            raise ConfigError(f"{path} is missing or a link", remedy="fetch the artifact again")
        try:
            same = path.stat().st_size == entry.size and sha256_file(path) == entry.sha256
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}", remedy="check its permissions") from error
        if not same:
            raise ConfigError(
                f"{path} differs from its manifest (sha256 should be {entry.sha256[:12]}…): damaged or tampered with",
                remedy="fetch it again, or run the job that makes it again",
            )
    return manifest
