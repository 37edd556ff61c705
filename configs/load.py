"""YAML -> ``Campaign``: overrides, variables, defaults, matrix, validation, graph. Everything is refused here, with
file and line, before anything is queued.

    campaign: NAME                 several jobs          |   name: NAME          one job: the fields of JobSpec
    vars: {corpus: data.txt}       ${vars.corpus}        |   task: ...
    defaults: {engine: {...}}      merged under each job |   vars: {...}         allowed here too
    jobs:
      - name: prune
        matrix: {sparsity: [0.8, 0.9]}                   -> prune-0.8, prune-0.9
        method: {name: gradual_magnitude, final_sparsity: "${matrix.sparsity}"}
"""

import copy
import difflib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from configs.base import Strict
from configs.errors import ConfigError, RecipeErrors
from configs.graph import check_graph, link_cells
from configs.spec import JobName, JobSpec
from configs.yaml_text import Path as KeyPath
from configs.yaml_text import dotted, parse

MAX_JOBS = 2_000
_CAMPAIGN_KEYS = {"campaign", "labels", "vars", "defaults", "matrix", "jobs", "description"}
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


class Campaign(Strict):
    """Jobs that are submitted together; a single job is a campaign of one without a name."""

    name: JobName | None = None
    labels: dict[str, str] = {}
    jobs: tuple[JobSpec, ...]
    """In an order in which parents come first."""


def load_file(path: Path, overrides: Sequence[str] = (), base: Path | None = None) -> Campaign:
    """Read a recipe from a file; see ``load_text``.

    Raises:
        ConfigError: The file cannot be read, or anything ``load_text`` raises.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", file=str(path), remedy="see `prunus recipes` for names"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", file=str(path)) from error
    return load_text(text, file=str(path), overrides=overrides, base=base)


def load_text(
    text: str, *, file: str = "<string>", overrides: Sequence[str] = (), base: Path | None = None
) -> Campaign:
    """Read a recipe.

    Args:
        text: YAML, one document.
        file: Name used in messages.
        overrides: ``a.b=value`` with YAML values; in a campaign ``jobs.NAME.x=``, ``defaults.x=`` or ``vars.x=``.
        base: Directory against which relative data files and model directories are made absolute; None: left as they are.

    Raises:
        ConfigError: One mistake; RecipeErrors for several.
    """
    document, lines = parse(text, file)
    if not isinstance(document, dict):
        raise ConfigError("a recipe is a mapping of keys", file=file, line=1, remedy="see `prunus recipes`")
    for override in overrides:
        _override(document, override)
    is_campaign = "jobs" in document
    raw_jobs = _raw_jobs(document, file, lines) if is_campaign else [_single(document)]
    cells: list[tuple[int, dict[str, Any], dict[str, Any]]] = []
    for index, raw in enumerate(raw_jobs):
        cells += [(index, cell, job) for cell, job in _expand(document, raw, index, file, lines, is_campaign)]
    if len(cells) > MAX_JOBS:
        raise ConfigError(f"expands to {len(cells)} jobs, at most {MAX_JOBS} are taken at once", file=file)
    link_cells([(str(raw_jobs[i].get("name", "")), cell, job) for i, cell, job in cells], file)
    errors: list[ConfigError] = []
    jobs: list[tuple[JobSpec, int | None]] = []
    for index, _, job in cells:
        if base is not None:
            _absolute(job, base)
        prefix: KeyPath = ("jobs", index) if is_campaign else ()
        try:
            jobs.append((JobSpec.model_validate(job), _line(lines, prefix)))
        except ValidationError as error:
            errors += list(_explain(error, prefix, file, lines))
    if not errors:
        errors += check_graph(jobs, file)
    errors = list({str(error): error for error in errors}.values())
    if errors:
        raise errors[0] if len(errors) == 1 else RecipeErrors(errors)
    try:
        return Campaign(
            name=document.get("campaign"),
            labels=document.get("labels", {}) if is_campaign else {},
            jobs=tuple(_in_order([spec for spec, _ in jobs])),
        )
    except ValidationError as error:
        found = list(_explain(error, (), file, lines, renamed={"name": "campaign"}))
        raise found[0] if len(found) == 1 else RecipeErrors(found) from error


def _raw_jobs(document: dict[str, Any], file: str, lines: Mapping[KeyPath, int]) -> list[dict[str, Any]]:
    for key in document:
        if key not in _CAMPAIGN_KEYS:
            raise ConfigError(
                f"unknown key {key!r}",
                path=str(key),
                file=file,
                line=_line(lines, (key,)),
                remedy=f"a campaign has {', '.join(sorted(_CAMPAIGN_KEYS))}",
            )
    jobs = document["jobs"]
    if not isinstance(jobs, list) or not jobs or not all(isinstance(job, dict) for job in jobs):
        raise ConfigError("jobs must be a list of jobs", path="jobs", file=file, line=_line(lines, ("jobs",)))
    return jobs


def _single(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in {"vars", "matrix"}}


def _expand(
    document: dict[str, Any],
    raw: dict[str, Any],
    index: int,
    file: str,
    lines: Mapping[KeyPath, int],
    is_campaign: bool,
) -> Iterable[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield (matrix cell, job mapping) for every cell of the job's matrix."""
    job = _merge(document.get("defaults") or {}, raw) if is_campaign else dict(raw)
    matrix = {**(document.get("matrix") or {}), **(job.pop("matrix", None) or {})}
    place: KeyPath = ("jobs", index) if is_campaign else ()
    for key, values in matrix.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(
                f"matrix.{key} must be a list of values, got {values!r}",
                path=dotted((*place, "matrix", key)),
                file=file,
                line=_line(lines, (*place, "matrix", key)) or _line(lines, ("matrix", key)),
            )
    for values in itertools.product(*matrix.values()):
        cell = dict(zip(matrix, values, strict=True))
        scope = {"vars": document.get("vars") or {}, "matrix": cell}
        filled = _fill(copy.deepcopy(job), scope, place, file, lines)
        if cell and filled.get("name") == raw.get("name"):
            filled["name"] = "-".join([str(raw.get("name", "")), *(_slug(value) for value in values)])
        yield cell, filled


def _slug(value: object) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", str(value).lower()).strip("-.")


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge; what stands in ``above`` wins. A mapping with another ``name`` (another kind) replaces whole."""
    merged = copy.deepcopy(dict(below))
    for key, value in above.items():
        old = merged.get(key)
        same_kind = isinstance(old, dict) and isinstance(value, dict) and old.get("name") in {None, value.get("name")}
        merged[key] = _merge(old, value) if same_kind else copy.deepcopy(value)  # type: ignore[arg-type]
    return merged


def _fill(value: Any, scope: Mapping[str, Any], path: KeyPath, file: str, lines: Mapping[KeyPath, int]) -> Any:
    """Replace ``${vars.x}`` and ``${matrix.x}``; a string that is one variable keeps the variable's type."""
    if isinstance(value, dict):
        return {key: _fill(item, scope, (*path, key), file, lines) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, scope, (*path, i), file, lines) for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def look_up(name: str) -> Any:
        room, _, key = name.partition(".")
        if room in scope and key in scope[room]:
            return scope[room][key]
        known = sorted(f"{r}.{k}" for r, keys in scope.items() for k in keys)
        raise ConfigError(
            f"unknown variable ${{{name}}}",
            path=dotted(path),
            file=file,
            line=_line(lines, path),
            remedy=f"known: {', '.join(known) or 'none'}",
        )

    whole = _VARIABLE.fullmatch(value)
    if whole:
        return look_up(whole.group(1))
    return _VARIABLE.sub(lambda match: str(look_up(match.group(1))), value)


def _override(document: dict[str, Any], override: str) -> None:
    """Apply one ``a.b=value`` in place."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override!r} is not of the form a.b=value")
    value, _ = parse(text, f"--set {key}") if text.strip() else (None, {})
    place: Any = document
    if parts[0] == "jobs" and isinstance(document.get("jobs"), list):
        named = [job for job in document["jobs"] if isinstance(job, dict)]
        matches = [job for job in named if len(parts) > 2 and job.get("name") == parts[1]]
        if not matches:
            known = ", ".join(str(job.get("name")) for job in named)
            raise ConfigError(f"--set {override!r} names no job", remedy=f"write jobs.NAME.field=value; jobs: {known}")
        place, parts = matches[0], parts[2:]
    elif "jobs" in document and parts[0] not in _CAMPAIGN_KEYS:
        raise ConfigError(
            f"--set {override!r}: the file is a campaign", remedy="begin with jobs.NAME., defaults. or vars."
        )
    for part in parts[:-1]:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise ConfigError(f"--set {override!r}: {part} is not a mapping")
    place[parts[-1]] = value


def _absolute(job: dict[str, Any], base: Path) -> None:
    """Make relative data files and model directories absolute, in place."""

    def path(text: str) -> str:
        return str((base / Path(text).expanduser()).resolve())

    task = job.get("task")
    data = task.get("data") if isinstance(task, dict) else None
    for split in ("train", "eval"):
        source = data.get(split) if isinstance(data, dict) else None
        if isinstance(source, dict) and isinstance(source.get("files"), list):
            source["files"] = [path(f) if isinstance(f, str) and "://" not in f else f for f in source["files"]]
    places = (("model", "from"), ("model", "source"), ("distillation", "teacher"), ("method", "mask"))
    for room, key in places:
        owner = job.get(room)
        value = owner.get(key) if isinstance(owner, dict) else None
        if isinstance(value, str) and (value.startswith(("./", "../", "~")) or value in {".", ".."}):
            owner[key] = path(value)  # type: ignore[index]


def _line(lines: Mapping[KeyPath, int], path: KeyPath) -> int | None:
    """Line of the path, else of the nearest thing around it; a job's field may come from ``defaults``."""
    candidates = [path]
    if len(path) > 2 and path[0] == "jobs":
        candidates.append(("defaults", *path[2:]))
    for depth in range(len(path), 0, -1):
        for candidate in candidates:
            cut = candidate[: len(candidate) - (len(path) - depth)]
            if len(cut) > (1 if candidate is not path else 0) and cut in lines:
                return lines[cut]
    return lines.get(())


_UNION_TAGS = {"dense", "gradual_magnitude", "locked", "masked_lm", "classification"}


def _explain(
    error: ValidationError,
    prefix: KeyPath,
    file: str,
    lines: Mapping[KeyPath, int],
    renamed: Mapping[str, str] | None = None,
) -> Iterable[ConfigError]:
    """Turn pydantic's report into our messages."""
    for item in error.errors(include_url=False):
        loc: KeyPath = tuple(
            part
            for i, part in enumerate(item["loc"])
            if not (part in _UNION_TAGS and i and item["loc"][i - 1] in {"task", "method"})
        )
        loc = tuple((renamed or {}).get(str(part), part) if i == 0 else part for i, part in enumerate(loc))
        what = item["msg"].removeprefix("Value error, ")
        remedy = ""
        if item["type"] == "extra_forbidden":
            what, remedy = f"unknown key {loc[-1]!r}", _did_you_mean(item, loc)
        elif item["type"] == "missing":
            what = "is missing"
        elif item["type"] not in {"value_error", "union_tag_invalid", "union_tag_not_found"}:
            what = f"{what}, got {yaml.safe_dump(item['input'], default_flow_style=True).split(chr(10))[0][:80]}"
        what, _, tail = what.partition("; ") if not remedy else (what, "", "")
        yield ConfigError(
            what,
            path=dotted((*prefix, *loc)),
            file=file,
            line=_line(lines, (*prefix, *loc)),
            remedy=remedy or tail,
        )


def _did_you_mean(item: Any, loc: KeyPath) -> str:
    known = _fields_at(loc[:-1])
    close = difflib.get_close_matches(str(loc[-1]), known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(sorted(known))}" if known else ""


def _fields_at(path: KeyPath) -> list[str]:
    """Names that may stand at a place of JobSpec (all kinds of a union together)."""
    schema = JobSpec.model_json_schema(by_alias=True)
    nodes = [schema]
    for part in path:
        step = []
        for node in nodes:
            step += _variants(node.get("properties", {}).get(part, {}), schema)
        nodes = step
    return sorted({name for node in nodes for name in node.get("properties", {})})


def _variants(node: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in node:
        return _variants(schema["$defs"][node["$ref"].rsplit("/", 1)[-1]], schema)
    options = node.get("anyOf") or node.get("oneOf") or node.get("allOf")
    return [v for option in options for v in _variants(option, schema)] if options else [node]


def _in_order(jobs: list[JobSpec]) -> list[JobSpec]:
    """Parents before children, otherwise as written."""
    names = {job.name for job in jobs}
    done: dict[str, JobSpec] = {}
    while len(done) < len(jobs):
        for job in jobs:
            if job.name not in done and all(p in done for p in (*job.after, *job.parents) if p in names):
                done[job.name] = job
    return list(done.values())
