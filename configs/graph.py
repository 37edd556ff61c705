"""The graph of a campaign: matrix references are linked, names are unique, parents exist, no cycles. Pure."""

from collections.abc import Sequence
from typing import Any

from configs.errors import ConfigError
from configs.spec import JobSpec

Cell = dict[str, Any]
_REFERENCES = (("model", "from"), ("model", "source"), ("distillation", "teacher"), ("method", "mask"))


def link_cells(jobs: Sequence[tuple[str, Cell, dict[str, Any]]], file: str) -> None:
    """Turn references to a job with a matrix into references to its cells, in place.

    ``after: [prune]`` means every cell of ``prune`` that agrees with the own cell on the shared keys;
    ``from: job:prune`` means the one such cell, and is an error if there are several.

    Args:
        jobs: (name as written, matrix cell, mapping with the expanded name) of every job.
    """
    for _, cell, job in jobs:

        def cells_of(name: str, own: Cell = cell) -> list[str]:
            found = []
            for raw, other, target in jobs:
                agree = all(own[key] == other[key] for key in own.keys() & other.keys())
                if raw == name and other and agree:
                    found.append(str(target.get("name")))
            return found

        names = {str(other.get("name")) for _, _, other in jobs}
        after = job.get("after")
        if isinstance(after, list):
            job["after"] = [
                target
                for name in after
                for target in ([name] if name in names or not cells_of(str(name)) else cells_of(str(name)))
            ]
        for room, key in _REFERENCES:
            owner = job.get(room)
            value = owner.get(key) if isinstance(owner, dict) else None
            if not isinstance(value, str) or not value.startswith("job:"):
                continue
            name = value.removeprefix("job:")
            targets = [] if name in names else cells_of(name)
            if len(targets) > 1:
                raise ConfigError(
                    f"job:{name} stands for {len(targets)} jobs of a matrix ({', '.join(targets)})",
                    path=f"{job.get('name')}.{room}.{key}",
                    file=file,
                    remedy="name one of them, or give this job the same matrix",
                )
            if targets:
                owner[key] = f"job:{targets[0]}"  # type: ignore[index]


def check_graph(jobs: Sequence[tuple[JobSpec, int | None]], file: str) -> list[ConfigError]:
    """Find what is wrong between jobs: a name twice, an unknown name in ``after``, a cycle.

    A ``from: job:NAME`` that is not in the campaign is no error here: it may be an earlier job of the server.

    Args:
        jobs: Specs with the line where each begins.
    """
    errors = []
    by_name: dict[str, JobSpec] = {}
    for spec, line in jobs:
        if spec.name in by_name:
            errors.append(
                ConfigError(f"two jobs are named {spec.name!r}", file=file, line=line, remedy="rename one of them")
            )
        by_name[spec.name] = spec
    for spec, line in jobs:
        for name in spec.after:
            if name not in by_name:
                errors.append(
                    ConfigError(
                        f"job {spec.name!r} comes after {name!r}, which is not in this campaign",
                        path="after",
                        file=file,
                        line=line,
                        remedy=f"jobs here: {', '.join(sorted(by_name))}",
                    )
                )
    cycle = _find_cycle({name: [p for p in (*s.after, *s.parents) if p in by_name] for name, s in by_name.items()})
    if cycle:
        line = next(line for spec, line in jobs if spec.name == cycle[0])
        errors.append(
            ConfigError(
                f"jobs wait for each other in a circle: {' -> '.join([*cycle, cycle[0]])}",
                path="after",
                file=file,
                line=line,
                remedy="take one of these out of after:, from: or teacher:",
            )
        )
    return errors


def _find_cycle(parents: dict[str, list[str]]) -> list[str]:
    """Names along one cycle, or []."""
    done: set[str] = set()
    for start in parents:
        path: list[str] = []
        stack = [(start, iter(parents[start]))]
        if start in done:
            continue
        path.append(start)
        while stack:
            name, remaining = stack[-1]
            for parent in remaining:
                if parent in path:
                    return path[path.index(parent) :]
                if parent not in done:
                    path.append(parent)
                    stack.append((parent, iter(parents[parent])))
                    break
            else:
                done.add(name)
                path.pop()
                stack.pop()
    return []
