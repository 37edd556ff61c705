"""Tables that name clips: tsv (not quoted: Common Voice puts quotes into sentences), csv, and JSON by lines.

A row that does not fit the header comes as its fault in words, so that one torn line does not end a job. A tab inside
a tsv field is such a row: it has a column too many.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prunus.jobs.errors import DataError

MANIFEST_SUFFIXES = (".tsv", ".csv", ".jsonl", ".ndjson", ".json")

Row = dict[str, Any] | str
"""Column -> value, or what is wrong with the row."""


def header_of(path: Path, header: bool) -> list[str]:
    """Return the names of the columns: of the first line, or "0", "1", ... without a header.

    Raises:
        DataError: The file is empty, names a column twice or is not UTF-8 text.
    """
    first = next(_cells(path), None)
    if first is None:
        raise DataError(f"{path} is empty; give a file with at least one row")
    cells = first[1]
    if isinstance(cells, str):
        raise DataError(f"{path}: line {first[0]}: {cells}")
    if isinstance(cells, dict):
        return list(cells)
    names = cells if header else [str(number) for number in range(len(cells))]
    if len(set(names)) < len(names):
        raise DataError(f"{path}: the first line names a column twice: {', '.join(names)}; is it a header? See header:")
    return names


def read_rows(path: Path, columns: list[str], header: bool) -> Iterator[tuple[int, Row]]:
    """Yield (line number, row)."""
    lines = _cells(path)
    if header and path.suffix.lower() in {".tsv", ".csv"}:
        next(lines, None)
    for number, cells in lines:
        if not isinstance(cells, list):
            yield number, cells
        elif len(cells) == len(columns):
            yield number, dict(zip(columns, cells, strict=True))
        else:
            yield number, f"{len(cells)} columns where the header has {len(columns)}"


def _cells(path: Path) -> Iterator[tuple[int, list[str] | dict[str, Any] | str]]:
    """Yield (line number, cells of csv and tsv, object of JSON, or a fault)."""
    suffix = path.suffix.lower()
    try:
        with path.open(encoding="utf-8-sig", newline="" if suffix == ".csv" else None) as file:
            if suffix == ".csv":
                reader = csv.reader(file)
                yield from ((reader.line_num, cells) for cells in reader if cells)
            elif suffix == ".tsv":
                yield from ((n, line.rstrip("\n").split("\t")) for n, line in enumerate(file, 1) if line.strip())
            else:
                yield from ((n, _object(line)) for n, line in enumerate(file, 1) if line.strip())
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error}); convert it first") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _object(line: str) -> dict[str, Any] | str:
    try:
        value = json.loads(line)
    except ValueError as error:
        return f"is no JSON ({error})"
    return value if isinstance(value, dict) else "is no JSON object"
