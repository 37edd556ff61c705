"""Compare what jobs left: masks with each other, sparsity per weight, metrics against sparsity.

    directory -> Candidate (mask at 1 bit per weight, job.json) -> compare() -> Comparison
              -> write(): comparison.json, README.md with tables

Here: ``prunus compare``. On the cluster: ``jobs.comparison.job``. Pictures: ``jobs.comparison.figures``. All masks are
in memory at once: 100 of 85M weights take 1.1 GB, their 4,950 pairs 15 s.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.comparison import overlap
from prunus.configs.artifacts.comparison.candidates import Candidate, unique_names
from prunus.configs.artifacts.comparison.overlap import Kept, why_other_weights
from prunus.configs.artifacts.comparison.result import COMPARISON_FILE, Comparison, Entry, Matrix
from prunus.configs.artifacts.comparison.tables import report
from prunus.configs.artifacts.layout import JOB_RECORD
from prunus.configs.artifacts.mask_file import PackedMask
from prunus.configs.errors import ArtifactRefused
from prunus.configs.values.wording import listed

_MATRICES = ("iou_kept", "random_iou_kept", "iou_removed", "random_iou_removed", "flipped")
_MOST_NOTES = 6
_NO_VALUE = "none"
"""Stands in a group's name for a key that its jobs lack."""


def compare(candidates: Sequence[Candidate], by: Sequence[str] = ("method",)) -> Comparison:
    """Compare everything with everything. Pure.

    Args:
        by: Labels, ``task``, ``method``, ``campaign``, or paths into a job's spec; their values name the groups.

    Raises:
        ArtifactRefused: Fewer than two candidates; a key that no candidate has; there are masks, and no two of them are
            of the same weights.
    """
    if len(candidates) < 2:
        raise ArtifactRefused(f"{len(candidates)} to compare; name at least two")
    notes: list[str] = []
    groups = _groups(candidates, by)
    kept = [one.mask.count_kept() if one.mask else {} for one in candidates]
    names = unique_names(candidates)
    entries = [
        _entry(replace(one, name=name), group, counts, notes)
        for one, name, group, counts in zip(candidates, names, groups, kept, strict=True)
    ]
    named = [list(dict.fromkeys(values)) for values in zip(*groups, strict=True)]
    places = [[known.index(value) for known, value in zip(named, group, strict=True)] for group in groups]
    order = sorted(range(len(entries)), key=lambda i: (places[i], entries[i].sparsity or 0.0))
    entries = [entries[i] for i in order]
    found: list[tuple[str, PackedMask, Kept]] = []
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


def write(comparison: Comparison, out: Path, title: str, figures: Sequence[Path] = ()) -> None:
    """Write ``comparison.json``, and ``README.md`` with the tables.

    Args:
        figures: Pictures below ``out``, which the page shows.
    """
    write_atomic(out / COMPARISON_FILE, comparison.model_dump_json(indent=1) + "\n")
    write_atomic(out / "README.md", report(comparison, title, [path.relative_to(out).as_posix() for path in figures]))


def _entry(one: Candidate, group: tuple[str, ...], kept: Kept, notes: list[str]) -> Entry:
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
        task=one.value("task") or "",
        method=one.value("method") or "",
        labels={str(key): str(value) for key, value in spec.get("labels", {}).items()},
        group=group,
        sparsity=sparsity,
        num_weights=total,
        sparsity_by_weight={name: 1.0 - kept[name] / size if size else 0.0 for name, size in sizes.items()},
        metrics={name: value for name, value in sorted(evaluated.items()) if math.isfinite(value)},
    )


def _groups(candidates: Sequence[Candidate], by: Sequence[str]) -> list[tuple[str, ...]]:
    for key in by:
        if all(one.value(key) is None for one in candidates):
            labels = sorted({label for one in candidates if one.record for label in one.record.spec.get("labels", {})})
            raise ArtifactRefused(
                f"by: none of what is compared has a label or setting {key!r}; labels there: "
                f"{listed(labels, 20)}; name one of them, task, method, campaign, or a path into the spec "
                "such as method.pattern"
            )
    return [tuple(one.value(key) or _NO_VALUE for key in by) for one in candidates]


def _other_weights(found: Sequence[tuple[str, PackedMask]]) -> list[str]:
    """Say which masks cannot be compared with the others, and why.

    Raises:
        ArtifactRefused: No two can be.
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
        notes += [_why_apart(other, family) for other in families[:place]]
    if len(found) > 1 and len(families) == len(found):
        raise ArtifactRefused(f"no two masks are of the same weights: {notes[0]}")
    more = len(notes) - _MOST_NOTES
    return notes if more <= 0 else [*notes[:_MOST_NOTES], f"{more} more groups of masks are not compared either"]


def _why_apart(first: Sequence[tuple[str, PackedMask]], second: Sequence[tuple[str, PackedMask]]) -> str:
    """Why two groups of masks are not compared."""
    (one, first_mask), (two, second_mask) = first[0], second[0]
    names = [listed([name for name, _ in family]) for family in (first, second)]
    why = why_other_weights(first_mask.shapes, second_mask.shapes, (one, two))
    return f"{names[0]} and {names[1]} are not compared: {why}"


def _pairs(found: Sequence[tuple[PackedMask, Kept]]) -> list[list[overlap.Overlap | None]]:
    """Overlap of every mask with every mask; the matrix is symmetric, so each pair is counted once."""
    table: list[list[overlap.Overlap | None]] = [[None] * len(found) for _ in found]
    for i, (first, kept_first) in enumerate(found):
        for j, (second, kept_second) in enumerate(found[: i + 1]):
            if first.shapes == second.shapes:
                table[i][j] = table[j][i] = overlap.compare(first, second, kept_first, kept_second)
    return table
