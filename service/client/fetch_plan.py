"""Where every file of an artifact goes. Pure.

``model/x`` arrives as ``DEST/x``, so that ``from_pretrained(DEST)`` works; everything else keeps its path.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prunus.configs.artifacts.compact.layout import PACKED, compact_name, packed_path
from prunus.configs.artifacts.layout import JOB_RECORD
from prunus.configs.artifacts.manifest import MANIFEST, FileEntry, safe_relative
from prunus.configs.errors import ConfigError, Damaged
from prunus.service.client.download import PART
from prunus.service.wire import FileView

MARK = ".prunus-fetch.json"
"""Says whose unfinished fetch a directory is."""


@dataclass(frozen=True)
class Item:
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


def plan(files: Sequence[FileView], *, masks_only: bool = False) -> list[Item]:
    """Decide where every file goes. Pure.

    Raises:
        Damaged: A path leads out of the destination, or two files would have one path.
    """
    by_path = {file.path: file for file in files}
    packs = {packed for file in files if (packed := packed_path(file.path)) in by_path}
    items: list[Item] = []
    for file in files:
        try:
            path = safe_relative(file.path)
        except ConfigError as error:
            raise Damaged(str(error)) from error
        if file.path in packs or (masks_only and path.parts[0] not in ("masks", JOB_RECORD)):
            continue
        name = path.relative_to("model").as_posix() if path.parts[0] == "model" and len(path.parts) > 1 else str(path)
        items.append(Item(file, name, by_path.get(packed_path(file.path) or "")))
    taken = {MANIFEST: "our own manifest", MARK: "our own mark"}
    for item in items:
        for name in (name for place in item.places for name in (place, place + PART)):
            clash = taken.setdefault(name.casefold(), item.remote.path)
            if clash != item.remote.path:
                raise Damaged(f"{item.remote.path!r} and {clash!r} would have the same path; do not use this source")
    folders = {str(parent).casefold() for item in items for place in item.places for parent in Path(place).parents}
    for name in (folders - {"."}) & taken.keys():
        raise Damaged(f"{taken[name]!r} would be a file and a folder; do not use this source")
    return items
