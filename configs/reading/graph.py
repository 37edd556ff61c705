"""The graph of a campaign: matrix references are linked, names are unique, parents exist, no cycles. Pure."""

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from prunus.configs.errors import ConfigError
from prunus.configs.specs.base import JobBase
from prunus.configs.specs.comparison import ComparisonSpec
from prunus.configs.specs.union import AnySpec

Cell = dict[str, Any]
REFERENCES = (("model", "from"), ("model", "source"), ("distillation", "teacher"), ("method", "mask"))
"""Where a job may refer to another."""


def link_cells(jobs: Sequence[tuple[str, Cell, dict[str, Any]]], file: str) -> None:
    """Turn references to a job with a matrix into references to its cells, in place.

    ``after: [prune]`` means every cell of ``prune`` that agrees with the own cell on the shared keys;
    ``from: job:prune`` means the one such cell, and is an error if there are several; ``compare: {jobs: [prune]}``
    means every such cell again.

    Args:
        jobs: (name as written, matrix cell, mapping with the expanded name) of every job.
    """
    names = {str(job.get("name")) for _, _, job in jobs}
    by_written_name: dict[str, list[tuple[Cell, str]]] = defaultdict(list)
    for written, cell, job in jobs:
        if cell:
            by_written_name[written].append((cell, str(job.get("name"))))

    def cells_of(name: str, own: Cell) -> list[str]:
        if name in names:
            return []
        return [
            target
            for cell, target in by_written_name.get(name, [])
            if all(own[key] == cell[key] for key in own.keys() & cell.keys())
        ]

    for _, cell, job in jobs:
        after = job.get("after")
        if isinstance(after, list):
            linked = ((cells_of(name, cell) or [name]) if isinstance(name, str) else [name] for name in after)
            job["after"] = [target for targets in linked for target in targets]
        compare = job.get("compare")
        if isinstance(compare, dict) and isinstance(compare.get("jobs"), list):
            wanted = [
                (cells_of(item.removeprefix("job:"), cell) or [item]) if isinstance(item, str) else [item]
                for item in compare["jobs"]
            ]
            compare["jobs"] = [target for targets in wanted for target in targets]
        for room, key in REFERENCES:
            owner = job.get(room)
            value = owner.get(key) if isinstance(owner, dict) else None
            if not isinstance(value, str) or not value.startswith("job:"):
                continue
            targets = cells_of(value.removeprefix("job:"), cell)
            if len(targets) > 1:
                raise ConfigError(
                    f"{value} stands for {len(targets)} jobs of a matrix ({', '.join(targets[:8])})",
                    path=f"{job.get('name')}.{room}.{key}",
                    file=file,
                    remedy="name one of them, or give this job the same matrix",
                )
            if targets:
                owner[key] = f"job:{targets[0]}"  # type: ignore[index]


def check_graph(jobs: Sequence[tuple[AnySpec, int | None]], file: str) -> list[ConfigError]:
    """Find what is wrong between jobs: a name twice, an unknown name in ``after``, a cycle.

    A ``from: job:NAME`` that is not in the campaign is no error here: it may be an earlier job of the server.

    Args:
        jobs: Specs with the line where each begins.
    """
    errors = []
    by_name: dict[str, AnySpec] = {}
    lines = {spec.name: line for spec, line in reversed(jobs)}
    for spec, line in jobs:
        if spec.name in by_name:
            remedy = "rename one of them; in a matrix, write ${matrix.KEY} into name:"
            errors.append(ConfigError(f"two jobs are named {spec.name!r}", file=file, line=line, remedy=remedy))
        by_name[spec.name] = spec
    registered: dict[tuple[str, str], str] = {}
    for spec, line in jobs:
        errors += _wrong_parents(spec, line, by_name, file)
        if isinstance(spec, ComparisonSpec):
            continue
        output = spec.output
        first = registered.setdefault((output.register_as or "", output.alias), spec.name)
        if output.register_as and first != spec.name:
            errors.append(
                ConfigError(
                    f"jobs {first!r} and {spec.name!r} both register {output.register_as}@{output.alias}",
                    path="output.register_as",
                    file=file,
                    line=line,
                    remedy="give each its own name; in a matrix, write ${matrix.KEY} into it",
                )
            )
    try:
        TopologicalSorter(_parents(list(by_name.values()))).prepare()
    except CycleError as error:
        cycle = error.args[1]
        errors.append(
            ConfigError(
                f"jobs wait for each other in a circle: {' -> '.join(cycle)}",
                path="after",
                file=file,
                line=lines[cycle[0]],
                remedy="take one of these out of after:, from:, teacher:, mask: or compare:",
            )
        )
    return errors


def _wrong_parents(spec: AnySpec, line: int | None, by_name: Mapping[str, AnySpec], file: str) -> Iterator[ConfigError]:
    """What a job names that cannot come before it."""
    compared = spec.names if isinstance(spec, ComparisonSpec) else ()
    for path, names, verb in (("after", spec.after, "comes after"), ("compare.jobs", compared, "compares")):
        for name in names:
            if name not in by_name:
                what = f"job {spec.name!r} {verb} {name!r}, which is not in this campaign"
                here = f"jobs here: {', '.join(sorted(by_name)[:20])}"
                earlier = f"; for an earlier one write job:{name}" if path == "compare.jobs" else ""
                yield ConfigError(what, path=path, file=file, line=line, remedy=here + earlier)
    for name in spec.parents:
        if isinstance(by_name.get(name), ComparisonSpec):
            what = f"job {spec.name!r} reads from {name!r}, which compares and leaves neither model nor mask"
            yield ConfigError(what, file=file, line=line, remedy="name a job that trains, or use after:")


def in_order(jobs: Sequence[AnySpec]) -> list[AnySpec]:
    """Parents before children, otherwise as written. Names are unique and there is no cycle."""
    place = {job.name: index for index, job in enumerate(jobs)}
    sorter = TopologicalSorter(_parents(jobs))
    sorter.prepare()
    ready: list[int] = []
    ordered: list[AnySpec] = []
    while sorter.is_active():
        for name in sorter.get_ready():
            heapq.heappush(ready, place[name])
        job = jobs[heapq.heappop(ready)]
        ordered.append(job)
        sorter.done(job.name)
    return ordered


def _parents(jobs: Sequence[JobBase]) -> dict[str, list[str]]:
    names = {job.name for job in jobs}
    return {job.name: [parent for parent in (*job.after, *job.parents) if parent in names] for job in jobs}
