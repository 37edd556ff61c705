"""Compare what jobs left: masks with each other, sparsity per weight, metrics against sparsity.

    directory -> Candidate (mask at 1 bit per weight, job.json) -> compare() -> Comparison
              -> write(): comparison.json, README.md with tables, figures

By hand: ``python -m prunus.jobs.comparison [--by KEY]... [--no-figures] [NAME=]DIR... --out OUT``, over job artifacts
on storage, fetched directories (``prunus fetch --masks-only``), or directories with a mask alone. On the cluster the
same,
by ``jobs.comparison.job``. All masks are in memory at once: 100 of 85M weights take 1.1 GB, their 4,950 pairs 15 s.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prunus.configs import ConfigError, JobRecord
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.comparison.result import COMPARISON_FILE, Comparison, Entry, Matrix
from prunus.configs.artifacts.layout import JOB_RECORD
from prunus.configs.artifacts.manifest import MANIFEST, read_manifest, verify
from prunus.configs.specs.union import is_comparison
from prunus.jobs.comparison import figures as comparison_figures
from prunus.jobs.comparison.tables import report
from prunus.jobs.errors import PruningError, UserError
from prunus.jobs.sparsity import masks
from prunus.jobs.sparsity.masks import PackedMask
from prunus.jobs.sparsity.overlap import Overlap, compare_packed, num_kept_packed, refuse_other_shapes

_SHORT = {"task": "task.name", "method": "method.name"}
_MATRICES = ("iou_kept", "random_iou_kept", "iou_removed", "random_iou_removed", "flipped")
_MOST_NOTES = 6
NO_VALUE = "none"
"""Stands in a group's name for a key that its jobs lack."""


@dataclass(frozen=True)
class Candidate:
    """What takes part.

    Attributes:
        name: How it is called; need not be unique.
        source: Reference or directory, for the record.
        record: What ``job.json`` says; None without one.
        mask: None for a job that prunes nothing.
    """

    name: str
    source: str
    record: JobRecord | None = None
    mask: PackedMask | None = None


def read_candidate(directory: Path, name: str = "", source: str = "") -> Candidate:
    """Read mask and facts of a directory; what its manifest names of them is verified.

    Args:
        directory: A job's artifacts, a fetched directory, a directory with ``mask.safetensors``, or that file.
        name: Empty: the job's name, else the directory's.
        source: Empty: the directory.

    Raises:
        UserError: There is nothing to compare.
        ConfigError: A file differs from the manifest, or ``job.json`` cannot be read.
        PruningError: The mask is damaged.
    """
    made_by = ""
    if (directory / MANIFEST).is_file():
        made_by = read_manifest(directory).job_name
        for prefix in (f"{masks.FOLDER}/", JOB_RECORD):
            verify(directory, prefix=prefix)
    record = _read_record(directory / JOB_RECORD)
    place = masks.newest(directory)
    if place is None and (directory.is_file() or (directory / masks.FILE_NAME).is_file()):
        place = directory
    if place is None and record is None:
        raise UserError(
            f"{directory} has neither a mask ({masks.FOLDER}/step-N/{masks.FILE_NAME}) nor {JOB_RECORD}; name the "
            "artifacts of a job, or a directory that `prunus fetch` wrote"
        )
    if record is not None and is_comparison(record.spec):
        raise UserError(f"{source or directory} compares and has nothing to compare itself; name jobs that train")
    called = name or (record.job_name if record else made_by) or directory.resolve().name
    return Candidate(called, source or str(directory), record, masks.load_packed(place) if place else None)


def _read_record(path: Path) -> JobRecord | None:
    try:
        return JobRecord.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {str(error)[:300]}", remedy="fetch it again") from error


def compare(candidates: Sequence[Candidate], by: Sequence[str] = ("method",)) -> Comparison:
    """Compare everything with everything. Pure.

    Args:
        by: Labels, ``task``, ``method``, ``campaign``, or paths into a job's spec; their values name the groups.

    Raises:
        UserError: Fewer than two candidates, a key that no candidate has.
        PruningError: There are masks, and no two of them are of the same weights.
    """
    if len(candidates) < 2:
        raise UserError(f"{len(candidates)} to compare; name at least two")
    notes: list[str] = []
    groups = _groups(candidates, by)
    kept = [num_kept_packed(one.mask) if one.mask else {} for one in candidates]
    names = _unique_names(candidates)
    entries = [
        _entry(replace(one, name=name), group, counts, notes)
        for one, name, group, counts in zip(candidates, names, groups, kept, strict=True)
    ]
    named = [list(dict.fromkeys(values)) for values in zip(*groups, strict=True)]
    places = [[known.index(value) for known, value in zip(named, group, strict=True)] for group in groups]
    order = sorted(range(len(entries)), key=lambda i: (places[i], entries[i].sparsity or 0.0))
    entries = [entries[i] for i in order]
    found: list[tuple[str, PackedMask, dict[str, int]]] = []
    for i in order:
        if (mask := candidates[i].mask) is not None:
            found.append((names[i], mask, kept[i]))
    notes += _other_weights([(name, mask) for name, mask, _ in found])
    pairs = _pairs([(mask, counts) for _, mask, counts in found])
    matrices: dict[str, Matrix] = {
        key: tuple(tuple(None if one is None else getattr(one, key) for one in row) for row in pairs)
        for key in _MATRICES
    }
    masked = tuple(name for name, _, _ in found)
    return Comparison(by=tuple(by), entries=tuple(entries), masked=masked, notes=tuple(notes), **matrices)


def _entry(one: Candidate, group: tuple[str, ...], kept: Mapping[str, int], notes: list[str]) -> Entry:
    spec = one.record.spec if one.record else {}
    metrics = one.record.metrics if one.record else {}
    evaluated = {name: value for name, value in metrics.items() if name.startswith("eval/")}
    if odd := [name for name, value in evaluated.items() if not math.isfinite(value)]:
        notes.append(f"{one.name}: {', '.join(odd)} is no finite number and left out")
    sizes = {name: math.prod(shape) for name, shape in one.mask.shapes.items()} if one.mask else {}
    total = sum(sizes.values())
    sparsity = 1.0 - sum(kept.values()) / total if total else metrics.get("sparsity/prunable")
    if sparsity is None:
        notes.append(f"{one.name} has no mask, and its sparsity is not known: it is in no curve")
    if one.record is None:
        notes.append(f"{one.name} has no {JOB_RECORD}: its metrics and labels are not known")
    return Entry(
        name=one.name,
        source=one.source,
        task=_value(one, "task") or "",
        method=_value(one, "method") or "",
        labels={str(key): str(value) for key, value in spec.get("labels", {}).items()},
        group=group,
        sparsity=sparsity,
        num_weights=total,
        sparsity_by_weight={name: 1.0 - kept[name] / size if size else 0.0 for name, size in sizes.items()},
        metrics={name: value for name, value in sorted(evaluated.items()) if math.isfinite(value)},
    )


def _groups(candidates: Sequence[Candidate], by: Sequence[str]) -> list[tuple[str, ...]]:
    for key in by:
        if all(_value(one, key) is None for one in candidates):
            labels = sorted({label for one in candidates if one.record for label in one.record.spec.get("labels", {})})
            raise UserError(
                f"by: none of what is compared has a label or setting {key!r}; labels there: "
                f"{', '.join(labels) or 'none'}; name one of them, task, method, campaign, or a path into the spec "
                "such as method.pattern"
            )
    return [tuple(_value(one, key) or NO_VALUE for key in by) for one in candidates]


def _value(one: Candidate, key: str) -> str | None:
    """What a candidate has for a key of ``by``; None if nothing."""
    if one.record is None:
        return one.mask.facts.get("method") if one.mask and key == "method" else None
    value: Any = one.record.spec.get("labels", {}).get(key)
    if value is None and key == "campaign":
        value = one.record.campaign_name
    elif value is None:
        value = one.record.spec
        for part in _SHORT.get(key, key).split("."):
            value = value.get(part) if isinstance(value, dict) else None
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _unique_names(candidates: Sequence[Candidate]) -> list[str]:
    """Names; where two are equal, with the campaign; where that does not help, with a number."""
    names = [one.name for one in candidates]
    full = [
        f"{one.record.campaign_name}/{one.name}"
        if names.count(one.name) > 1 and one.record and one.record.campaign_name
        else one.name
        for one in candidates
    ]
    unique: list[str] = []
    for name in full:
        number = 2
        while name in unique:
            name, number = f"{name.rsplit(' #', 1)[0]} #{number}", number + 1
        unique.append(name)
    return unique


def _other_weights(found: Sequence[tuple[str, PackedMask]]) -> list[str]:
    """Say which masks cannot be compared with the others, and why.

    Raises:
        PruningError: No two can be.
    """
    families: list[list[tuple[str, PackedMask]]] = []
    for name, mask in found:
        for family in families:
            if family[0][1].shapes == mask.shapes:
                family.append((name, mask))
                break
        else:
            families.append([(name, mask)])
    notes = [f"only {found[0][0]} has a mask: there is no pair"] if len(found) == 1 else []
    for place, family in enumerate(families):
        for other in families[:place]:
            why = _why_other(other[0], family[0])
            notes.append(f"{_listed(other)} and {_listed(family)} are not compared: {why}")
    if len(found) > 1 and len(families) == len(found):
        raise PruningError(f"no two masks are of the same weights: {notes[0]}")
    more = len(notes) - _MOST_NOTES
    return notes if more <= 0 else [*notes[:_MOST_NOTES], f"{more} more groups of masks are not compared either"]


def _why_other(first: tuple[str, PackedMask], second: tuple[str, PackedMask]) -> str:
    try:
        refuse_other_shapes(first[1].shapes, second[1].shapes)
    except PruningError as error:
        text = str(error).replace("the first mask", first[0]).replace("the second mask", second[0])
        return text.replace("in the second", f"in {second[0]}")
    raise AssertionError("shapes differ")


def _listed(family: Sequence[tuple[str, PackedMask]]) -> str:
    names = [name for name, _ in family]
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"


def _pairs(found: Sequence[tuple[PackedMask, Mapping[str, int]]]) -> list[list[Overlap | None]]:
    """Overlap of every mask with every mask; the matrix is symmetric, so each pair is counted once."""
    table: list[list[Overlap | None]] = [[None] * len(found) for _ in found]
    for i, (first, kept_first) in enumerate(found):
        for j, (second, kept_second) in enumerate(found[: i + 1]):
            if first.shapes == second.shapes:
                table[i][j] = table[j][i] = compare_packed(first, second, kept_first, kept_second)
    return table


def write(comparison: Comparison, out: Path, title: str, *, figures: bool = True) -> None:
    """Write ``comparison.json``, ``README.md`` with the tables, and ``figures/*.png`` into ``out``."""
    write_atomic(out / COMPARISON_FILE, comparison.model_dump_json(indent=1) + "\n")
    drawn = comparison_figures.draw(comparison, out / "figures") if figures else []
    write_atomic(out / "README.md", report(comparison, title, [path.relative_to(out).as_posix() for path in drawn]))
