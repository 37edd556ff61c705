"""Rows of a split, read through ``datasets``: local files (text, jsonl, csv, tsv, parquet; plain or .gz) or the hub.

Local files are always read as a stream, so nothing is copied beside what ``pipeline.cache`` keeps. csv and tsv
columns are text, whatever they look like ("NA" and "007" stay what they are); csv may be quoted, tsv is not.
Knows nothing of tokens.
"""

import csv
import glob
import gzip
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa  # type: ignore[import-untyped]

from prunus.configs.tasks.data_source import DataSource
from prunus.configs.values.wording import listed
from prunus.jobs.errors import DataError

_BUILDER_OF = {
    ".txt": "text", ".text": "text",
    ".jsonl": "json", ".json": "json", ".ndjson": "json",
    ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet",
}  # fmt: skip
# Every load_dataset, of local files too, would ask the hub to count it: seconds of waiting behind a firewall.
datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False

_ENCODING = "utf-8-sig"  # UTF-8, with or without a byte order mark


@dataclass(frozen=True)
class Rows:
    """A split that can be read again and again, always in the same order.

    Attributes:
        where: Path of the split in the spec, for messages ("task.data.train").
        source: What the spec says.
        files: Local files in reading order; empty for the hub.
        streaming: Read a hub data set as a stream.
    """

    where: str
    source: DataSource
    files: tuple[Path, ...]
    streaming: bool

    @property
    def name(self) -> str:
        """The split in words, for messages."""
        if self.source.hub:
            return f"{self.where} (hub data set {self.source.hub}, split {self.source.split})"
        return f"{self.where} ({listed(self.files)})"

    def fingerprint(self) -> str:
        """Return a digest of the content. Files: sha256 over their bytes; hub: revision and split.

        Raises:
            DataError: A file cannot be read, or the hub cannot be reached.
        """
        digest = hashlib.sha256()
        with _reading(self.name):
            if self.source.hub:
                builder = datasets.load_dataset_builder(self.source.hub, self.source.config)
                revision = f"{builder.config_id}/{builder.hash}"  # the hash covers the commit of the data files
                digest.update(f"{self.source.hub}\0{self.source.split}\0{revision}".encode())
            for path in self.files:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest() + _builder(path).encode() + b"\0")
        digest.update(b"header" if self.source.header else b"no header")
        return digest.hexdigest()

    def listing(self) -> str:
        """Return a digest of names and sizes (hub: of the revision), for a stream that is too long to be hashed."""
        if self.source.hub:
            return self.fingerprint()
        return hashlib.sha256(repr([(path.name, path.stat().st_size) for path in self.files]).encode()).hexdigest()

    def open(self) -> Any:
        """Open as a ``datasets.IterableDataset`` (files, streams) or ``datasets.Dataset`` (hub).

        Raises:
            DataError: The hub or a file cannot be read.
        """
        with _reading(self.name):
            if self.source.hub:
                return datasets.load_dataset(
                    self.source.hub, self.source.config, split=self.source.split, streaming=self.streaming
                )
            builder = _builder(self.files[0])
            paths = [glob.escape(str(path)) for path in self.files]
            options = _csv_options(self.files[0], self.source.header) if builder in {"csv", "tsv"} else {}
            if builder == "text":
                options = {"encoding": _ENCODING}
            builder = builder.replace("tsv", "csv")
            try:
                return datasets.load_dataset(builder, data_files=paths, split="train", streaming=True, **options)
            except StopIteration:  # how the json reader answers to a file without rows
                raise DataError(f"{self.name}: holds no rows; give a split with at least one") from None

    def read(self, columns: tuple[str, ...], opened: Any = None, *, resumed: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the rows with these columns, from the start; ``resumed``: from where ``opened`` stands.

        Raises:
            DataError: No rows, a column that does not exist, or content that cannot be read.
        """
        with _reading(self.name):
            rows = iter(self.open() if opened is None else opened)
            first = next(rows, None)
            if first is None and resumed:
                return
            if first is None:
                raise DataError(f"{self.name}: holds no rows; give a split with at least one")
            self._require(columns, first)
            for row in chain([first], rows):
                yield {column: row.get(column) for column in columns}

    def read_batches(self, columns: tuple[str, ...], size: int) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows in lists of ``size`` (the last one shorter)."""
        rows = self.read(columns)
        while batch := list(islice(rows, size)):
            yield batch

    def class_names(self, column: str) -> tuple[str, ...]:
        """Return the names behind a hub column of class numbers; empty for all other columns."""
        if not self.source.hub:
            return ()
        feature = (self.open().features or {}).get(column)
        return tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else ()

    def _require(self, columns: tuple[str, ...], row: dict[str, Any]) -> None:
        for column in columns:
            if column not in row:
                raise DataError(
                    f"{self.name}: has no column {column!r}; it has {', '.join(repr(c) for c in row)}. "
                    f"Set text_column, pair_column or label_column (and header, for csv and tsv) to match"
                )


def find_rows(source: DataSource, where: str, *, streaming: bool = False) -> Rows:
    """Find the files of a split without opening them.

    Raises:
        DataError: A file is missing, a glob matches nothing, or the forms of the files are mixed or unknown.
    """
    files = tuple(path for pattern in source.files for path in _expand(pattern, where))
    builders = {_builder(path) for path in files}
    if len(builders) > 1:
        raise DataError(f"{where}.files mixes {', '.join(sorted(builders))} files; give files of one form")
    return Rows(where, source, files, streaming)


def _expand(pattern: str, where: str) -> list[Path]:
    path = Path.cwd() / Path(pattern).expanduser()  # not resolved: the target of a link may have no suffix
    if path.is_file():
        return [path]
    if not glob.has_magic(pattern):
        what = "is a directory; give its files, for example with a glob" if path.is_dir() else "does not exist"
        raise DataError(f"{where}.files: {pattern!r} (looked for at {path}) {what}")
    matches = map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    found = sorted(match for match in matches if match.is_file())
    if not found:
        raise DataError(f"{where}.files: {pattern!r} (looked for as {path}) matches no file")
    return found


def _builder(path: Path) -> str:
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix.lower() not in _BUILDER_OF:
        raise DataError(
            f"cannot tell the form of {path} by its name; use one of {', '.join(_BUILDER_OF)} (or .gz of it)"
        )
    return _BUILDER_OF[suffix.lower()]


def _csv_options(path: Path, header: bool) -> dict[str, Any]:
    """Return options that read every column as text: guessing per chunk would turn "NA" to null and "007" to 7."""
    tabs = _builder(path) == "tsv"
    dialect: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"delimiter": ","}
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding=_ENCODING, newline="") as file:
        first = next(csv.reader(file, **dialect), None)
    if first is None:
        raise DataError(f"{path} is empty; give a file with at least one row")
    names = first if header else [str(number) for number in range(len(first))]
    if len(set(names)) < len(names):
        raise DataError(f"{path}: the first line names a column twice: {', '.join(names)}; is it a header? See header:")
    return {
        "sep": dialect["delimiter"],
        "quoting": dialect.get("quoting", csv.QUOTE_MINIMAL),
        "names": names,
        "header": 0 if header else None,
        "keep_default_na": False,
        "encoding": _ENCODING,
        "features": datasets.Features({name: datasets.Value("string") for name in names}),
    }


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn what the readers raise into errors that name the split."""
    try:
        yield
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: is not UTF-8 text ({error}); convert it first") from error
    except (ConnectionError, datasets.exceptions.DatasetNotFoundError) as error:
        raise DataError(
            f"{name}: the hub cannot be reached or has no such data set ({_first_line(error)}); check the id and the "
            f"network, or give local files"
        ) from error
    except (OSError, EOFError, ValueError, KeyError, pa.ArrowException, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{name}: cannot be read: {type(error).__name__}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]
