"""Download an artifact: every file verified, cut connections continued, nothing written outside the destination.

    list -> check paths and the destination -> per file: NAME.part, resumed by byte range -> sha256 -> rename
         -> manifest.json, last.  A directory without manifest.json is unfinished; the same command goes on with it.

``model/x`` arrives as ``DEST/x``, so that ``from_pretrained(DEST)`` works; everything else keeps its path.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.artifacts import MANIFEST, FileEntry, Manifest, safe_relative, sha256_file, write_atomic
from configs.base import Record
from configs.errors import ConfigError
from service.client import Client
from service.errors import Damaged, NotFound, Refused, Unreachable
from service.wire import ArtifactView, FileView

MAX_CUTS = 6
"""Cut connections in a row, without a byte between them, after which a fetch gives up."""
_MARK = ".prunus-fetch.json"
"""Says whose unfinished fetch a directory is."""
_PART = ".part"
_MAX_MANIFEST_BYTES = 64 * 1024**2

Progress = Callable[[str, int, int], None]
"""Called with the file's name, bytes done of all files, bytes of all files."""


class Fetched(Record):
    """What a fetch brought."""

    source: str
    dest: str
    manifest_sha256: str
    """Digest of the source's manifest."""
    files: tuple[str, ...]
    """Paths below ``dest``."""
    total_bytes: int
    downloaded_bytes: int
    """0 if everything was there already."""

    @property
    def summary(self) -> str:
        """One line for people."""
        what = f"{len(self.files)} files, {self.total_bytes:,} bytes, every sha256 verified"
        return f"{self.dest}: {what}" + ("" if self.downloaded_bytes else " (all of it was there already)")


@dataclass(frozen=True)
class _Item:
    remote: FileView
    name: str
    """POSIX path below the destination."""


def fetch(
    client: Client,
    source: str,
    dest: Path,
    *,
    masks_only: bool = False,
    progress: Progress = lambda _name, _done, _total: None,
    pause: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Bring an artifact to ``dest``.

    Args:
        source: ``job:NAME``, ``job:ID``, ``models:/NAME@ALIAS``; a bare NAME means ``job:NAME``.
        dest: New, empty, or left by an interrupted or earlier fetch of the same artifact.
        masks_only: Only what lies below ``masks/``.
        progress: Called after every piece.
        pause: Waits so many seconds between two tries.

    Raises:
        NotFound: No such source, or it has no masks.
        Refused: ``source`` has none of these forms, ``dest`` holds other files, or the disk is full.
        Damaged: A path leads out of ``dest``, two files have one path, or bytes differ from the manifest.
        Unreachable: The server stayed away.
    """
    source = full_source(source)
    view = client.artifacts(source)
    pinned = f"job:{view.job_id}"  # A name may mean a newer job before the last file is here.
    manifest = _source_manifest(client, view, pinned)
    items = plan(view.files, masks_only=masks_only)
    if not items:
        raise NotFound(f"{source} has no {'masks: its method removes nothing' if masks_only else 'files'}")
    with _local_errors(dest):
        earlier = _claim(dest, view, {item.name for item in plan(view.files)})
        _check_space(dest, items)
        total = sum(item.remote.size for item in items)
        done = downloaded = 0
        for item in items:
            target = dest / item.name
            _make_parents(dest, target)
            if not _matches(target, item.remote):
                base = done

                def report(position: int, item: _Item = item, base: int = base) -> None:
                    progress(item.name, base + position, total)

                downloaded += _download(client, pinned, item, target, report, pause)
            done += item.remote.size
            progress(item.name, done, total)
        _finish(dest, view, manifest, items, earlier)
    names = tuple(item.name for item in items)
    return Fetched(
        source=view.source,
        dest=str(dest),
        manifest_sha256=view.manifest_sha256,
        files=names,
        total_bytes=total,
        downloaded_bytes=downloaded,
    )


def full_source(source: str) -> str:
    """Complete a bare NAME to ``job:NAME``, and refuse what is no artifact of a server.

    Raises:
        Refused: With the forms that there are.
    """
    is_path = source.startswith((".", "/", "~"))
    if not source.strip() or is_path or (":" in source and not source.startswith(("job:", "models:/"))):
        what = "is a path" if is_path else "names no artifact"
        raise Refused(f"the source {source!r} {what}; write job:NAME, job:CAMPAIGN/NAME, job:ID or models:/NAME@ALIAS")
    return source if ":" in source else f"job:{source}"


def plan(files: Sequence[FileView], *, masks_only: bool = False) -> list[_Item]:
    """Decide where every file goes. Pure.

    Raises:
        Damaged: A path leads out of the destination, or two files would have one path.
    """
    items: list[_Item] = []
    for file in files:
        try:
            path = safe_relative(file.path)
        except ConfigError as error:
            raise Damaged(str(error)) from error
        if masks_only and path.parts[0] != "masks":
            continue
        name = path.relative_to("model").as_posix() if path.parts[0] == "model" and len(path.parts) > 1 else str(path)
        items.append(_Item(file, name))
    taken = {MANIFEST: "our own manifest", _MARK: "our own mark"}
    for item in items:
        for name in (item.name, item.name + _PART):
            clash = taken.setdefault(name.casefold(), item.remote.path)
            if clash != item.remote.path:
                raise Damaged(f"{item.remote.path!r} and {clash!r} would have the same path; do not use this source")
    folders = {str(parent).casefold() for item in items for parent in Path(item.name).parents} - {"."}
    for name in folders & taken.keys():
        raise Damaged(f"{taken[name]!r} would be a file and a folder; do not use this source")
    return items


def _source_manifest(client: Client, view: ArtifactView, pinned: str) -> dict[str, Any]:
    """Read the manifest itself, check its digest, and check the listing against it."""
    text = b""
    for _ in range(MAX_CUTS):
        text = b""
        with contextlib.suppress(Unreachable), client.open_file(pinned, MANIFEST) as chunks:
            for chunk in chunks:
                text += chunk
                if len(text) > _MAX_MANIFEST_BYTES:
                    raise Damaged(f"the manifest of {view.source} is larger than {_MAX_MANIFEST_BYTES:,} bytes")
        if hashlib.sha256(text).hexdigest() == view.manifest_sha256:
            break
    else:
        raise Damaged(f"the manifest of {view.source} differs from its recorded digest {view.manifest_sha256[:12]}…")
    try:
        document = json.loads(text)
        listed = Manifest.model_validate(document).files
    except ValueError as error:
        raise Damaged(f"the manifest of {view.source} cannot be read: {error}") from error
    for file in view.files:
        if listed.get(file.path) != FileEntry(sha256=file.sha256, size=file.size):
            raise Damaged(f"the server lists {file.path!r} otherwise than the manifest of {view.source}; do not use it")
    assert isinstance(document, dict)
    return document


def _claim(dest: Path, view: ArtifactView, names: set[str]) -> Mapping[str, Any]:
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
        write_atomic(dest / _MARK, json.dumps(mark))
        return {}
    left = _read_json(dest / MANIFEST) or _read_json(dest / _MARK)
    if left.get("source_manifest_sha256") != view.manifest_sha256:
        what = f"files of {left['source']}, an older state of it or another" if "source" in left else "other files"
        raise Refused(f"{dest} holds {what} ({', '.join(sorted(present)[:3])}); name an empty directory")
    foreign = sorted(present - names - {name + _PART for name in names} - {MANIFEST, _MARK})
    if foreign:
        raise Refused(f"{dest} holds files that are not of {view.source}: {', '.join(foreign[:3])}; move them away")
    files = left.get("files")
    return files if isinstance(files, dict) else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _check_space(dest: Path, items: Sequence[_Item]) -> None:
    missing = [item for item in items if not (dest / item.name).exists()]
    needed = sum(item.remote.size - _size(dest / (item.name + _PART)) for item in missing)
    free = shutil.disk_usage(dest).free
    if needed > free:
        raise Refused(f"{dest} has {free:,} bytes free, the fetch needs {needed:,}; free some, or name another disk")


def _make_parents(dest: Path, target: Path) -> None:
    """Create the folders of a file; none of them, and neither file, may be a link."""
    part = target.with_name(target.name + _PART)
    for path in (*(p for p in target.parents if dest in p.parents), target, part):
        if path.is_symlink():
            raise Damaged(f"{path} is a symbolic link, which could lead out of {dest}; remove it")
    target.parent.mkdir(parents=True, exist_ok=True)


def _matches(path: Path, file: FileView) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256_file(path) == file.sha256


def _download(
    client: Client,
    source: str,
    item: _Item,
    target: Path,
    report: Callable[[int], None],
    pause: Callable[[float], None],
) -> int:
    """Bring one file, going on with its ``.part`` if that fits.

    Returns:
        Bytes that came over the wire.
    """
    part = target.with_name(target.name + _PART)
    if _size(part) > item.remote.size:
        part.unlink()
    came = 0
    for resumed in (part.exists(), False):
        came += _fill(client, source, item, part, report, pause)
        if sha256_file(part) == item.remote.sha256:
            part.replace(target)
            return came
        part.unlink()
        if not resumed:
            break
    raise Damaged(
        f"{item.remote.path} of {source} differs from its manifest (sha256 should be {item.remote.sha256[:12]}…): "
        "damaged or tampered with; nothing of it was kept"
    )


def _fill(
    client: Client, source: str, item: _Item, part: Path, report: Callable[[int], None], pause: Callable[[float], None]
) -> int:
    """Append to ``part`` until it has the file's size, asking again after every cut."""
    begin = position = _size(part)
    cuts = 0
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    with os.fdopen(handle, "ab") as file:
        while position < item.remote.size:
            before = position
            failure: Unreachable | None = None
            try:
                with client.open_file(source, item.remote.path, position) as chunks:
                    for chunk in chunks:
                        if position + len(chunk) > item.remote.size:
                            raise Damaged(f"{item.remote.path} of {source} is longer than its manifest says")
                        file.write(chunk)
                        position += len(chunk)
                        report(position)
            except Unreachable as error:
                failure = error
            if position < item.remote.size:
                cuts = 1 if position > before else cuts + 1
                if cuts >= MAX_CUTS:
                    raise failure or Damaged(f"{item.remote.path} of {source} ends after {position:,} bytes, too early")
                pause(min(0.2 * 2**cuts, 5.0))
        file.flush()
        os.fsync(file.fileno())
    return position - begin


def _finish(
    dest: Path, view: ArtifactView, manifest: dict[str, Any], items: Sequence[_Item], earlier: Mapping[str, Any]
) -> None:
    """Write the manifest of what lies here: the source's own text with the paths of this directory."""
    files = {item.name: {"sha256": item.remote.sha256, "size": item.remote.size} for item in items}
    kept = {name: entry for name, entry in earlier.items() if (dest / name).is_file()}
    document = {
        **manifest,
        "files": dict(sorted({**kept, **files}.items())),
        "source": view.source,
        "source_manifest_sha256": view.manifest_sha256,
    }
    write_atomic(dest / MANIFEST, json.dumps(document, indent=2) + "\n")
    (dest / _MARK).unlink(missing_ok=True)


@contextlib.contextmanager
def _local_errors(dest: Path) -> Iterator[None]:
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


def _size(path: Path) -> int:
    try:
        info = path.lstat()
    except FileNotFoundError:
        return 0
    return info.st_size if stat.S_ISREG(info.st_mode) else 0
