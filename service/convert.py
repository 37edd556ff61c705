"""Between the plain and the compact form of a fetched directory; everything but the weights is copied as it is."""

import re
import shutil
from pathlib import Path
from typing import Literal

from configs.artifacts import MANIFEST, FileEntry, Manifest, sha256_file, verify, write_atomic
from configs.base import Record
from configs.errors import ConfigError
from service.compact import to_compact, to_plain
from service.errors import Damaged, NotFound, Refused

Form = Literal["compact", "plain"]
_PLAIN = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_COMPACT = re.compile(r"model\.sparse(-\d+-of-\d+)?\.safetensors")


class Converted(Record):
    """What a conversion wrote."""

    dest: str
    form: Form
    files: tuple[str, ...]
    """Files of weights, below ``dest``."""
    bytes_before: int
    """Of the weights."""
    bytes_after: int

    @property
    def summary(self) -> str:
        """One line for people."""
        change = f"{self.bytes_before:,} -> {self.bytes_after:,} bytes"
        return f"{self.dest}: {', '.join(self.files)}, {change} ({self.bytes_after / self.bytes_before:.0%})"


def convert(source: Path, dest: Path, form: Form) -> Converted:
    """Write the other form of a directory to ``dest``; whole, or not at all.

    Args:
        source: What ``prunus fetch`` or an earlier conversion wrote, or any model directory with safetensors.
        dest: A directory that does not exist, or is empty.
        form: What ``dest`` will hold.

    Raises:
        NotFound: ``source`` holds no weights of the other form.
        Refused: ``dest`` holds files, or lies inside ``source``; the disk is full.
        Damaged: ``source`` differs from its manifest, or its weights are damaged.
    """
    names = _weights(source, form)
    manifest = _verified(source)
    dest = dest.resolve()
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise Refused(f"{dest} is there and holds files; name a new directory")
    if dest.is_relative_to(source.resolve()):
        raise Refused(f"{dest} lies inside {source}; name a directory outside of it")
    aside = dest.with_name(f".{dest.name}.converting")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, aside, ignore=shutil.ignore_patterns(MANIFEST, *names))
        for name, new_name in names.items():
            (to_compact if form == "compact" else to_plain)(source / name, aside / new_name)
        if manifest is not None:
            _write_manifest(aside, manifest, names)
        if dest.exists():
            dest.rmdir()
        aside.rename(dest)
    except OSError as error:
        raise Refused(f"{dest} cannot be written: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Converted(
        dest=str(dest),
        form=form,
        files=tuple(names.values()),
        bytes_before=sum((source / name).stat().st_size for name in names),
        bytes_after=sum((dest / name).stat().st_size for name in names.values()),
    )


def _weights(source: Path, form: Form) -> dict[str, str]:
    """File of weights -> its name in the other form."""
    if not source.is_dir():
        raise NotFound(f"{source} is no directory; name one that `prunus fetch` wrote")
    here = sorted(path.name for path in source.iterdir() if path.is_file())
    if form == "compact":
        found = {name: name.replace("model", "model.sparse", 1) for name in here if _PLAIN.fullmatch(name)}
    else:
        found = {name: name.replace("model.sparse", "model", 1) for name in here if _COMPACT.fullmatch(name)}
    if not found:
        wanted = "model.safetensors" if form == "compact" else "model.sparse.safetensors"
        raise NotFound(f"{source} holds no {wanted}: it is {form} already, or no fetched model")
    return found


def _verified(source: Path) -> Manifest | None:
    if not (source / MANIFEST).is_file():
        return None
    try:
        return verify(source)
    except ConfigError as error:
        raise Damaged(str(error)) from error


def _write_manifest(directory: Path, manifest: Manifest, names: dict[str, str]) -> None:
    files = {name: entry for name, entry in manifest.files.items() if name not in names}
    for name in names.values():
        path = directory / name
        files[name] = FileEntry(sha256=sha256_file(path), size=path.stat().st_size)
    changed = manifest.model_copy(update={"files": dict(sorted(files.items()))})
    write_atomic(directory / MANIFEST, changed.model_dump_json(indent=2) + "\n")
