"""Download an artifact: every file verified, cut connections continued, nothing written outside the destination.

    list -> check paths and the destination -> per file: NAME.part, resumed by byte range -> sha256 -> rename
         -> manifest.json, last.  A directory without manifest.json is unfinished; the same command goes on with it.

``model/x`` arrives as ``DEST/x``, so that ``from_pretrained(DEST)`` works; everything else keeps its path. Weights that
have a compact form travel in it, packed, and are turned back here (``unpack``); ``compact`` leaves them so.
"""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prunus.configs.artifacts.compact.unpack import unpack, unpack_to_plain
from prunus.configs.artifacts.layout import JOB_RECORD
from prunus.configs.artifacts.manifest import MANIFEST, FileEntry, Manifest, sha256_file
from prunus.configs.errors import ArtifactError, Damaged
from prunus.configs.values.base import Record
from prunus.service.client import Client
from prunus.service.client.destination import afford, claim, finish, local_errors, tidy
from prunus.service.client.download import PART, Wire, asking_again, download, make_parents, matches
from prunus.service.client.fetch_plan import Item, plan
from prunus.service.errors import NotFound, Refused
from prunus.service.wire import ArtifactView, FileView

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
    manifest = _source_manifest(wire, view)
    planned = plan(view.files, masks_only=masks_only)
    if not planned or (masks_only and not dense_too and [item.name for item in planned] == [JOB_RECORD]):
        raise NotFound(f"{source} has no {'masks: its method removes nothing' if masks_only else 'files'}")
    if compact and not any(item.packed for item in planned):
        raise NotFound(f"{source} has no compact form: it is dense, or of an older prunus; fetch it without --compact")
    notes: list[str] = []
    with local_errors(dest):
        earlier = claim(dest, view, {place for item in plan(view.files) for place in item.places})
        items = afford(dest, planned, compact)
        total = sum(item.transfer.size for item in items)
        files: dict[str, FileEntry] = {}
        done = 0
        for item in items:

            def report(position: int, item: Item = item, base: int = done) -> None:
                progress(item.name, base + min(position, item.transfer.size), total)

            name = item.left_as(compact)
            files[name] = _bring(wire, item, dest, name, earlier.get(name), report, notes)
            done += item.transfer.size
            progress(name, done, total)
        temporary = {place for item in planned for place in item.temporary}
        finish(dest, view, manifest, files, {k: v for k, v in earlier.items() if k not in temporary})
        tidy(dest, planned)
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


def _source_manifest(wire: Wire, view: ArtifactView) -> dict[str, Any]:
    """Read the manifest itself, check its digest, and check the listing against it."""
    text = asking_again(wire.pause)(_manifest_text, wire, view.source)
    if hashlib.sha256(text).hexdigest() != view.manifest_sha256:
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


def _manifest_text(wire: Wire, source: str) -> bytes:
    text = b""
    with wire.client.open_file(wire.source, MANIFEST) as chunks:
        for chunk in chunks:
            text += chunk
            if len(text) > _MAX_MANIFEST_BYTES:
                raise Damaged(f"the manifest of {source} is larger than {_MAX_MANIFEST_BYTES:,} bytes")
    return text


def _bring(
    wire: Wire,
    item: Item,
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
    wire: Wire, item: Item, packed: FileView, dest: Path, target: Path, report: Callable[[int], None]
) -> FileEntry:
    """Download a packed file, unless it is here already, and unpack it to ``target`` in the form of its name."""
    here = dest / packed.path
    if not matches(here, FileEntry(sha256=packed.sha256, size=packed.size)):
        download(wire, packed, here, report)
    part = target.with_name(target.name + PART)
    if target.name == Path(item.name).name:
        unpack_to_plain(here, part, item.entry)
        part.replace(target)
        return item.entry
    unpack(here, part, item.entry)
    part.replace(target)
    return FileEntry(sha256=sha256_file(target), size=target.stat().st_size)


def _as_entry(value: Any) -> FileEntry | None:
    try:
        return FileEntry.model_validate(value)
    except ValueError:
        return None
