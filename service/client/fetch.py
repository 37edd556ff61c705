"""Download an artifact: every file verified, cut connections continued, nothing written outside the destination.

    list -> check paths and the destination -> per file: NAME.part, resumed by byte range -> sha256 -> rename
         -> manifest.json, last.  A directory without manifest.json is unfinished; the same command goes on with it.

``model/x`` arrives as ``DEST/x``, so that ``from_pretrained(DEST)`` works; everything else keeps its path. Weights that
have a compact form travel in it, packed, and are turned back here (``unpack``); ``compact`` leaves them so.
"""

import contextlib
import errno
import hashlib
import importlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.compact.layout import PACKED, compact_name, packed_path
from prunus.configs.artifacts.layout import JOB_RECORD
from prunus.configs.artifacts.manifest import MANIFEST, FileEntry, Manifest, safe_relative, sha256_file
from prunus.configs.errors import ArtifactError, ConfigError, Damaged
from prunus.configs.values.base import Record
from prunus.configs.values.wording import listed
from prunus.service.client import Client
from prunus.service.client.download import MAX_CUTS, PART, Wire, download, make_parents, matches, size_of
from prunus.service.errors import NotFound, Refused, Unreachable
from prunus.service.wire import ArtifactView, FileView

_MARK = ".prunus-fetch.json"
"""Says whose unfinished fetch a directory is."""
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
    """0 if everything was there already; less than ``total_bytes`` where weights travelled in the compact form."""
    notes: tuple[str, ...] = ()
    """What did not go as it should, and was made good."""

    @property
    def summary(self) -> str:
        what = f"{len(self.files)} files, {self.total_bytes:,} bytes, every sha256 verified"
        if not self.downloaded_bytes:
            return f"{self.dest}: {what} (all of it was there already)"
        return f"{self.dest}: {what}; {self.downloaded_bytes:,} bytes were downloaded"


@dataclass(frozen=True)
class _Item:
    remote: FileView
    name: str
    """POSIX path below the destination."""
    packed: FileView | None = None
    """The same weights in the compact form; it lies at its own path below the destination until all is done."""

    @property
    def entry(self) -> FileEntry:
        return FileEntry(sha256=self.remote.sha256, size=self.remote.size)

    @property
    def transfer(self) -> FileView:
        """What travels."""
        return self.packed or self.remote

    @property
    def temporary(self) -> tuple[str, ...]:
        """What lies below the destination until all is done: the packed file, and what it unpacks to."""
        return (self.packed.path, self.packed.path.removesuffix(PACKED)) if self.packed else ()

    @property
    def places(self) -> tuple[str, ...]:
        """All that may lie below the destination because of it, but for parts."""
        return (self.name, compact_name(self.name), *self.temporary) if self.packed else (self.name,)

    def left_as(self, compact: bool) -> str:
        """What it is when all is done."""
        return compact_name(self.name) if compact and self.packed else self.name


def fetch(
    client: Client,
    source: str,
    dest: Path,
    *,
    masks_only: bool = False,
    compact: bool = False,
    dense_too: bool = False,
    progress: Progress = lambda _name, _done, _total: None,
    pause: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Bring an artifact to ``dest``.

    Args:
        source: ``job:NAME``, ``job:ID``, ``models:/NAME@ALIAS``; a bare NAME means ``job:NAME``.
        dest: New, empty, or left by an interrupted or earlier fetch of the same artifact.
        masks_only: Only what lies below ``masks/``, and ``job.json``.
        compact: Leave the weights in the compact form (``model.sparse.safetensors``).
        dense_too: With ``masks_only``: a job without masks is no error, its ``job.json`` is enough.
        progress: Called after every piece.
        pause: Waits so many seconds between two tries.

    Raises:
        NotFound: No such source, or it has no masks, or no compact form.
        Refused: ``source`` has none of these forms, ``dest`` holds other files, or the disk is full.
        Damaged: A path leads out of ``dest``, two files have one path, or bytes differ from the manifest.
        Unreachable: The server stayed away.
    """
    source = full_source(source)
    if compact and masks_only:
        raise Refused("masks have one form only; ask for the masks or for the compact form")
    view = client.artifacts(source)
    wire = Wire(client, f"job:{view.job_id}", pause)  # A name may mean a newer job before the last file is here.
    manifest = _source_manifest(client, view, wire.source)
    planned = plan(view.files, masks_only=masks_only)
    if not planned or (masks_only and not dense_too and [item.name for item in planned] == [JOB_RECORD]):
        raise NotFound(f"{source} has no {'masks: its method removes nothing' if masks_only else 'files'}")
    if compact and not any(item.packed for item in planned):
        raise NotFound(f"{source} has no compact form: it is dense, or of an older prunus; fetch it without --compact")
    notes: list[str] = []
    with _local_errors(dest):
        earlier = _claim(dest, view, {place for item in plan(view.files) for place in item.places})
        items = _afford(dest, planned, compact)
        total = sum(item.transfer.size for item in items)
        files: dict[str, FileEntry] = {}
        done = 0
        for item in items:

            def report(position: int, item: _Item = item, base: int = done) -> None:
                progress(item.name, base + min(position, item.transfer.size), total)

            name = item.left_as(compact)
            files[name] = _bring(wire, item, dest, name, earlier.get(name), report, notes)
            done += item.transfer.size
            progress(name, done, total)
        temporary = {place for item in planned for place in item.temporary}
        _finish(dest, view, manifest, files, {k: v for k, v in earlier.items() if k not in temporary})
        _tidy(dest, planned)
    return Fetched(
        source=view.source,
        dest=str(dest),
        manifest_sha256=view.manifest_sha256,
        files=tuple(files),
        total_bytes=sum(entry.size for entry in files.values()),
        downloaded_bytes=wire.downloaded,
        notes=tuple(notes),
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
    by_path = {file.path: file for file in files}
    packs = {packed for file in files if (packed := packed_path(file.path)) in by_path}
    items: list[_Item] = []
    for file in files:
        try:
            path = safe_relative(file.path)
        except ConfigError as error:
            raise Damaged(str(error)) from error
        if file.path in packs or (masks_only and path.parts[0] not in ("masks", JOB_RECORD)):
            continue
        name = path.relative_to("model").as_posix() if path.parts[0] == "model" and len(path.parts) > 1 else str(path)
        items.append(_Item(file, name, by_path.get(packed_path(file.path) or "")))
    taken = {MANIFEST: "our own manifest", _MARK: "our own mark"}
    for item in items:
        for name in (name for place in item.places for name in (place, place + PART)):
            clash = taken.setdefault(name.casefold(), item.remote.path)
            if clash != item.remote.path:
                raise Damaged(f"{item.remote.path!r} and {clash!r} would have the same path; do not use this source")
    folders = {str(parent).casefold() for item in items for place in item.places for parent in Path(place).parents}
    for name in (folders - {"."}) & taken.keys():
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
        raise Refused(f"{dest} holds {what} ({listed(sorted(present))}); name an empty directory")
    foreign = sorted(present - names - {name + PART for name in names} - {MANIFEST, _MARK})
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


def _afford(dest: Path, items: list[_Item], compact: bool) -> list[_Item]:
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


def _missing_bytes(dest: Path, items: Sequence[_Item], compact: bool) -> int:
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


def _bring(
    wire: Wire,
    item: _Item,
    dest: Path,
    name: str,
    known: Any,
    report: Callable[[int], None],
    notes: list[str],
) -> FileEntry:
    """Bring one file to ``dest / name``, or find it there.

    Args:
        known: What the directory's own manifest says of ``name``.
        notes: Is told if the compact form could not be used and the plain file was downloaded instead.
    """
    target = dest / name
    for place in item.places:
        make_parents(dest, dest / place)
    entry = item.entry if name == item.name else _as_entry(known)
    if entry and matches(target, entry):
        return entry
    if item.packed is not None:
        try:
            return _bring_packed(wire, item, item.packed, dest, target, report)
        except ArtifactError as error:
            if name != item.name:
                raise Damaged(f"{error}; without --compact the plain form may still be fetched") from error
            notes.append(f"the compact form of {name} is of no use, the plain file was downloaded: {error}")
    download(wire, item.remote, target, report)
    return item.entry


def _bring_packed(
    wire: Wire, item: _Item, packed: FileView, dest: Path, target: Path, report: Callable[[int], None]
) -> FileEntry:
    """Download a packed file, unless it is here already, and unpack it to ``target`` in the form of its name."""
    here = dest / packed.path
    if not matches(here, FileEntry(sha256=packed.sha256, size=packed.size)):
        download(wire, packed, here, report)
    unpacking = importlib.import_module("prunus.configs.artifacts.compact.unpack")  # brings NumPy
    part = target.with_name(target.name + PART)
    if target.name == Path(item.name).name:
        unpacking.unpack_to_plain(here, part, item.entry)
        part.replace(target)
        return item.entry
    unpacking.unpack(here, part, item.entry)
    part.replace(target)
    return FileEntry(sha256=sha256_file(target), size=target.stat().st_size)


def _as_entry(value: Any) -> FileEntry | None:
    try:
        return FileEntry.model_validate(value)
    except ValueError:
        return None


def _finish(
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
    (dest / _MARK).unlink(missing_ok=True)


def _tidy(dest: Path, items: Sequence[_Item]) -> None:
    """Remove what was packed; after the manifest, so that a repeat of a cut fetch downloads nothing twice."""
    for item in items:
        if item.packed is not None:
            for place in (*(place + PART for place in item.places), *item.temporary):
                (dest / place).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it holds more, or was never made
                (dest / item.packed.path).parent.rmdir()


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
