"""The directory that a fetch fills: made ours or refused, with room for it, and finished by its manifest."""

import contextlib
import errno
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.manifest import MANIFEST, FileEntry
from prunus.configs.errors import Damaged
from prunus.configs.values.wording import listed
from prunus.service.client.download import PART, size_of
from prunus.service.client.fetch_plan import MARK, Item
from prunus.service.errors import Refused
from prunus.service.wire import ArtifactView


def claim(dest: Path, view: ArtifactView, names: set[str]) -> Mapping[str, Any]:
    """Make ``dest`` ours, or refuse it.

    Returns:
        The files that an earlier fetch of the same artifact recorded.
    """
    if dest.exists() and not dest.is_dir():
        raise Refused(f"{dest} is a file; name a directory")
    dest.mkdir(parents=True, exist_ok=True)
    present = {path.relative_to(dest).as_posix() for path in dest.rglob("*") if path.is_symlink() or not path.is_dir()}
    mark = {"source": view.source, "source_manifest_sha256": view.manifest_sha256}
    if not present:
        write_atomic(dest / MARK, json.dumps(mark))
        return {}
    left = _read_json(dest / MANIFEST) or _read_json(dest / MARK)
    if left.get("source_manifest_sha256") != view.manifest_sha256:
        what = f"files of {left['source']}, an older state of it or another" if "source" in left else "other files"
        raise Refused(f"{dest} holds {what} ({listed(sorted(present))}); name an empty directory")
    foreign = sorted(present - names - {name + PART for name in names} - {MANIFEST, MARK})
    if foreign:
        raise Refused(f"{dest} holds files that are not of {view.source}: {listed(foreign)}; move them away")
    files = left.get("files")
    return files if isinstance(files, dict) else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def afford(dest: Path, items: list[Item], compact: bool) -> list[Item]:
    """The items if the disk has room for them; else, if that helps, without the detour over the compact form.

    Raises:
        Refused: There is too little space.
    """
    needed, free = _missing_bytes(dest, items, compact), shutil.disk_usage(dest).free
    if needed > free and not compact:
        items = [replace(item, packed=None) for item in items]
        needed = _missing_bytes(dest, items, compact)
    if needed > free:
        raise Refused(f"{dest} has {free:,} bytes free, the fetch needs {needed:,}; free some, or name another disk")
    return items


def _missing_bytes(dest: Path, items: Sequence[Item], compact: bool) -> int:
    """What the disk must have room for at least: what unpacks is counted as if it did not grow."""
    needed = 0
    for item in items:
        if (dest / item.left_as(compact)).exists():
            continue
        here = max(size_of(dest / f"{item.transfer.path}{end}") for end in ("", PART))
        needed += 2 * item.packed.size - here if item.packed else 0
        if not (compact and item.packed):
            needed += item.remote.size - size_of(dest / (item.name + PART))
    return needed


def finish(
    dest: Path,
    view: ArtifactView,
    manifest: dict[str, Any],
    files: Mapping[str, FileEntry],
    earlier: Mapping[str, Any],
) -> None:
    """Write the manifest of what lies here: the source's own text with the paths of this directory."""
    kept = {name: entry for name, entry in earlier.items() if (dest / name).is_file()}
    here = {name: entry.model_dump() for name, entry in files.items()}
    document = {
        **manifest,
        "files": dict(sorted({**kept, **here}.items())),
        "source": view.source,
        "source_manifest_sha256": view.manifest_sha256,
    }
    write_atomic(dest / MANIFEST, json.dumps(document, indent=2) + "\n")
    (dest / MARK).unlink(missing_ok=True)


def tidy(dest: Path, items: Sequence[Item]) -> None:
    """Remove what was packed; after the manifest, so that a repeat of a cut fetch downloads nothing twice."""
    for item in items:
        if item.packed is not None:
            for place in (*(place + PART for place in item.places), *item.temporary):
                (dest / place).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it holds more, or was never made
                (dest / item.packed.path).parent.rmdir()


@contextlib.contextmanager
def local_errors(dest: Path) -> Iterator[None]:
    """Turn what the local disk refuses into a message; what has arrived stays in ``.part`` files."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            what = f"the disk of {dest} is full; free some space and run the same command again, it goes on"
        elif error.errno == errno.ELOOP:
            raise Damaged(f"{error.filename} is a symbolic link; remove it") from error
        else:
            what = f"{error.filename or dest} cannot be written: {error.strerror}; choose another directory"
        raise Refused(what) from error
