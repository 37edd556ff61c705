"""From a document to one mapping per job: ``--set``, ``defaults``, ``matrix`` and ``${...}``. Pure; knows no field."""

import copy
import difflib
import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prunus.configs.errors import ConfigError
from prunus.configs.reading.places import Places
from prunus.configs.reading.yaml_text import Path as KeyPath
from prunus.configs.reading.yaml_text import parse
from prunus.configs.specs.union import is_comparison

MAX_JOBS = 2_000
CAMPAIGN_KEYS = {"campaign", "labels", "vars", "defaults", "matrix", "max_parallel", "jobs", "description"}
_SHARED_BY_ALL = {"labels"}
"""What a job that compares takes from ``defaults``: the rest is about training. Nor does it take part in the
campaign's matrix, since it stands beside all of its cells."""
_KINDS = {"task", "method"}
"""Keys whose mapping is one of several kinds, told apart by ``name``."""
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


@dataclass
class Expanded:
    """One job after expansion, before validation.

    Attributes:
        index: Place in ``jobs``.
        written_name: Its name before the matrix was applied.
        cell: Value of every matrix key.
        fields: Fields of JobSpec.
    """

    index: int
    written_name: str
    cell: dict[str, Any]
    fields: dict[str, Any]


def override(document: dict[str, Any], places: Places, text: str) -> None:
    """Apply one ``a.b=value`` to the document in place.

    Raises:
        ConfigError: Not of that form, no such job, or a part of the path is no mapping.
    """
    file = f"--set {text}"
    key, equals, written = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError("not of the form a.b=value", file=file)
    value = _value(written, file)
    place: Any = document
    path: KeyPath = ()
    if parts[0] == "jobs" and isinstance(document.get("jobs"), list):
        index, parts = _named_job(document["jobs"], parts[1:], file)
        place, path = document["jobs"][index], ("jobs", index)
    elif "jobs" not in document and parts[0] in {"jobs", "campaign", "defaults"}:
        raise ConfigError("the file is one job, not a campaign", file=file, remedy="begin with a field of the job")
    elif "jobs" in document and parts[0] not in CAMPAIGN_KEYS:
        raise ConfigError("the file is a campaign", file=file, remedy="begin with jobs.NAME., defaults. or vars.")
    if parts[0] == "vars" and len(parts) > 1:
        _check_variable(parts[1], document, file)
    for part in parts[:-1]:
        if place.get(part) is None:
            place[part] = {}
        place, path = place[part], (*path, part)
        if not isinstance(place, dict):
            remedy = f"give all of it: --set {key[: key.index(part) + len(part)]}=[...]"
            raise ConfigError(
                f"{part} is not a mapping", file=file, remedy=remedy if isinstance(place, list) else "shorten the path"
            )
    place[parts[-1]] = value
    places.overrides[(*path, parts[-1])] = file


def _check_variable(name: str, document: dict[str, Any], file: str) -> None:
    """Refuse to set a variable that nothing uses: it is a slip of the pen."""
    known = document.get("vars")
    names = list(known) if isinstance(known, dict) else []
    if name in names or f"vars.{name}" in {found.strip() for found in _VARIABLE.findall(repr(document))}:
        return
    close = difflib.get_close_matches(name, names, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(map(str, names)) or 'none'}"
    raise ConfigError(f"unknown variable {name!r}", file=file, remedy=remedy)


def _value(written: str, file: str) -> Any:
    if not written.strip():
        return None
    if written.lstrip().startswith("#"):
        return written
    return parse(written, file)[0]


def _named_job(jobs: list[Any], parts: list[str], file: str) -> tuple[int, list[str]]:
    """Find the job that a path begins with; names may hold dots."""
    for length in range(len(parts) - 1, 0, -1):
        for index, job in enumerate(jobs):
            if isinstance(job, dict) and job.get("name") == ".".join(parts[:length]):
                return index, parts[length:]
    known = ", ".join(str(job.get("name")) for job in jobs if isinstance(job, dict))
    raise ConfigError("names no job", file=file, remedy=f"write jobs.NAME.field=value; jobs: {known}")


def expand(document: dict[str, Any], places: Places) -> list[Expanded]:
    """Expand a campaign or a single job.

    Raises:
        ConfigError: A section has the wrong form, an unknown key or variable, too many jobs.
    """
    is_campaign = "jobs" in document
    variables = _fill_variables(_section(document, "vars", places), places)
    shared = _section(document, "matrix", places)
    jobs = _raw_jobs(document, places) if is_campaign else [_single(document, places)]
    below = _section(document, "defaults", places) if is_campaign else {}
    found: list[Expanded] = []
    for index, raw in enumerate(jobs):
        place: KeyPath = ("jobs", index) if is_campaign else ()
        compares = is_comparison(raw)
        job = merge({k: v for k, v in below.items() if k in _SHARED_BY_ALL} if compares else below, raw)
        own = _section(job, "matrix", places, place)
        job.pop("matrix", None)
        matrix = _fill(own if compares else {**shared, **own}, {"vars": variables}, (*place, "matrix"), places)
        for key, values in matrix.items():
            at = (*place, "matrix", key) if key in own else ("matrix", key)
            if not isinstance(values, list) or not values:
                raise places.error(f"must be a list of values, got {values!r}", at, f"write {key}: [{values}]")
            shown = [repr(value) for value in values]
            if twice := [value for value in dict.fromkeys(shown) if shown.count(value) > 1]:
                raise places.error(f"has {', '.join(twice)} more than once", at, "write each value once")
        # Counted before anything is built: ten keys of ten values would be ten thousand million jobs.
        count = len(found) + math.prod(len(values) for values in matrix.values())
        if count > MAX_JOBS:
            raise places.error(
                f"expands to {count:,} jobs or more, at most {MAX_JOBS:,} are taken at once",
                (*place, "matrix"),
                "shorten the matrix, or split the campaign",
            )
        found += _cells(job, matrix, variables, index, place, places)
    return found


def _cells(
    job: dict[str, Any],
    matrix: dict[str, list[Any]],
    variables: dict[str, Any],
    index: int,
    place: KeyPath,
    places: Places,
) -> Iterable[Expanded]:
    written = job.get("name")
    for values in itertools.product(*matrix.values()):
        cell = dict(zip(matrix, values, strict=True))
        filled = _fill(copy.deepcopy(job), {"vars": variables, "matrix": cell}, place, places)
        if cell and isinstance(written, str) and filled.get("name") == written:
            filled["name"] = "-".join([written, *(_slug(value) for value in values)])
        yield Expanded(index, str(written), cell, filled)


def _slug(value: object) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", str(value).lower()).strip("-.")


def _section(owner: dict[str, Any], key: str, places: Places, place: KeyPath = ()) -> dict[str, Any]:
    value = owner.get(key)
    if value is not None and not isinstance(value, dict):
        raise places.error(f"must be a mapping of names to values, got {value!r}", (*place, key))
    return value or {}


def _raw_jobs(document: dict[str, Any], places: Places) -> list[dict[str, Any]]:
    for key in document:
        if key not in CAMPAIGN_KEYS:
            known = ", ".join(sorted(CAMPAIGN_KEYS))
            raise places.error(f"unknown key {key!r}", (key,), f"a campaign has {known}; a job's fields stand in jobs:")
    jobs = document["jobs"]
    if not isinstance(jobs, list) or not jobs:
        what = "must be a list of jobs" if jobs else "has no job"
        raise places.error(what, ("jobs",), "write each job as - name: NAME, then its fields")
    for index, job in enumerate(jobs):
        if not isinstance(job, dict):
            raise places.error(f"must be a mapping of a job's fields, got {job!r}", ("jobs", index))
    return jobs


def _single(document: dict[str, Any], places: Places) -> dict[str, Any]:
    for key in ("campaign", "defaults"):
        if key in document:
            raise places.error(
                "belongs to a campaign, and there is no jobs: here", (key,), "add jobs: with a list of jobs"
            )
    return {key: value for key, value in document.items() if key not in {"vars", "max_parallel", "description"}}


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge deeply; what stands in ``above`` wins, null included. A task or method of another ``name`` replaces the
    one below whole."""
    merged = copy.deepcopy(dict(below))
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and not _other_kind(key, old, value):
            merged[key] = merge(old, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _other_kind(key: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    return key in _KINDS and "name" in old and "name" in new and old["name"] != new["name"]


def _fill_variables(variables: dict[str, Any], places: Places) -> dict[str, Any]:
    """Fill variables that use those written before them."""
    known: dict[str, Any] = {}
    for key, value in variables.items():
        known[key] = _fill(value, {"vars": known}, ("vars", key), places)
    return known


def _fill(value: Any, scope: Mapping[str, Any], path: KeyPath, places: Places) -> Any:
    """Replace ``${vars.x}`` and ``${matrix.x}``; a string that is one variable keeps the variable's type."""
    if isinstance(value, dict):
        return {key: _fill(item, scope, (*path, key), places) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, scope, (*path, i), places) for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def look_up(name: str) -> Any:
        room, _, key = name.strip().partition(".")
        if room in scope and key in scope[room]:
            return copy.deepcopy(scope[room][key])
        known = sorted(f"{r}.{k}" for r, keys in scope.items() for k in keys)
        raise places.error(f"unknown variable ${{{name}}}", path, f"known: {', '.join(known) or 'none'}")

    whole = _VARIABLE.fullmatch(value)
    if whole:
        return look_up(whole.group(1))

    def text_of(match: re.Match[str]) -> str:
        found = look_up(match.group(1))
        if found is None:
            raise places.error(f"{match.group()} has no value", path, "write one, or set it: --set vars.NAME=value")
        return str(found)

    return _VARIABLE.sub(text_of, value)
