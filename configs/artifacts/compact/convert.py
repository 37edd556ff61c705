"""Between the plain and the compact form of a fetched directory; everything but the weights is copied as it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from prunus.configs.artifacts.atomic_write import directory_aside, write_atomic
from prunus.configs.artifacts.compact.layout import compact_name, is_plain_name, plain_name
from prunus.configs.artifacts.compact.pack import to_compact
from prunus.configs.artifacts.compact.read import compact_files
from prunus.configs.artifacts.compact.unpack import to_plain
from prunus.configs.artifacts.manifest import MANIFEST, sha256_file, verify
from prunus.configs.errors import ArtifactMissing, ArtifactRefused, ConfigError, Damaged
from prunus.configs.values.base import Record

Form = Literal["compact", "plain"]


class Converted(Record):
    """What a conversion wrote."""

    dest: str
    form: Form
    files: tuple[str, ...]
    """Files of weights, below ``dest``."""
    bytes_before: int
    """Of the weights."""
    bytes_after: int
    verified: bool
    """Whether the source had a manifest, by which every file was checked; ``dest`` has one then."""

    @property
    def summary(self) -> str:
        """One line for people."""
        change = f"{self.bytes_before:,} -> {self.bytes_after:,} bytes ({self.bytes_after / self.bytes_before:.0%})"
        note = "" if self.verified else f"; no {MANIFEST} in the source: nothing was verified"
        return f"{self.dest}: {', '.join(self.files)}, {change}{note}"


def convert(source: Path, dest: Path, form: Form) -> Converted:
    """Write the other form of a directory to ``dest``; whole, or not at all.

    Args:
        source: What ``prunus fetch`` or an earlier conversion wrote, or any directory with safetensors in it or in its
            ``model/``.
        dest: A directory that does not exist, or is empty.
        form: What ``dest`` will hold.

    Raises:
        ArtifactMissing: ``source`` holds no weights of the other form.
        ArtifactRefused: ``dest`` holds files, or lies inside ``source``; something cannot be read or written.
        Damaged: ``source`` differs from its manifest or has weights that are not in it, or its weights are damaged.
    """
    try:
        names = _weights(source, form)
        manifest = _verified(source, names)
        dest = _checked(source, dest)
        with directory_aside(dest) as aside:
            _fill(source, aside, names, to_compact if form == "compact" else to_plain)
            if manifest is not None:
                _write_manifest(aside, manifest, names)
        return Converted(
            dest=str(dest),
            form=form,
            files=tuple(names.values()),
            bytes_before=sum((source / name).stat().st_size for name in names),
            bytes_after=sum((dest / name).stat().st_size for name in names.values()),
            verified=manifest is not None,
        )
    except (OSError, shutil.Error, RuntimeError) as error:  # the last: a loop of links
        raise ArtifactRefused(f"{source} cannot be converted to {dest}: {error}") from error


def _checked(source: Path, dest: Path) -> Path:
    dest = dest.resolve()
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise ArtifactRefused(f"{dest} is there and holds files; name a new directory")
    if dest.is_relative_to(source.resolve()):
        raise ArtifactRefused(f"{dest} lies inside {source}; name a directory outside of it")
    return dest


def _weights(source: Path, form: Form) -> dict[str, str]:
    """Path of a file of weights below ``source`` -> its path in the other form."""
    if not source.is_dir():
        raise ArtifactMissing(f"{source} is no directory; name one that `prunus fetch` wrote")
    for folder in (source, source / "model"):
        if not folder.is_dir():
            continue
        if form == "compact":
            found = sorted(path for path in folder.iterdir() if is_plain_name(path.name) and path.is_file())
            names = {path: compact_name(path.name) for path in found}
        else:
            names = {path: plain_name(path.name) for path in compact_files(folder)}
        if names:
            return {
                path.relative_to(source).as_posix(): path.with_name(name).relative_to(source).as_posix()
                for path, name in names.items()
            }
    wanted = "model.safetensors" if form == "compact" else "model.sparse.safetensors"
    raise ArtifactMissing(f"{source} holds no {wanted}: it is {form} already, or no fetched model")


def _verified(source: Path, names: dict[str, str]) -> dict[str, Any] | None:
    """The source's manifest as it stands, all of its files checked; None if there is none."""
    if not (source / MANIFEST).is_file():
        return None
    try:
        listed = verify(source).files
    except ConfigError as error:
        raise Damaged(str(error)) from error
    if unlisted := [name for name in names if name not in listed]:
        raise Damaged(f"{source / MANIFEST} does not list {unlisted[0]}: nothing vouches for it; fetch it again")
    document: dict[str, Any] = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
    return document


def _fill(source: Path, new: Path, names: dict[str, str], turn: Callable[[Path, Path], None]) -> None:
    left_out = {MANIFEST, *names}

    def ignore(folder: str, entries: list[str]) -> set[str]:
        inside = Path(folder).relative_to(source)
        return {entry for entry in entries if (inside / entry).as_posix() in left_out}

    shutil.copytree(source, new, ignore=ignore, dirs_exist_ok=True)
    for name, new_name in names.items():
        turn(source / name, new / new_name)


def _write_manifest(directory: Path, document: dict[str, Any], names: dict[str, str]) -> None:
    """All that the source's manifest says, with the weights' new names, digests and sizes."""
    files = {name: entry for name, entry in document["files"].items() if name not in names}
    for name in names.values():
        path = directory / name
        files[name] = {"sha256": sha256_file(path), "size": path.stat().st_size}
    write_atomic(directory / MANIFEST, json.dumps({**document, "files": dict(sorted(files.items()))}, indent=2) + "\n")
