"""YAML -> ``Campaign``: overrides, variables, defaults, matrix, validation, graph. Everything is refused here, with
file and line, before anything is queued.

    campaign: NAME                 several jobs          |   name: NAME          one job: the fields of JobSpec
    max_parallel: 4                at most 4 at a time   |   task: ...           (vars, matrix, max_parallel too)
    vars: {corpus: data.txt}       ${vars.corpus}        |
    defaults: {engine: {...}}      merged under each job |
    jobs:
      - name: prune
        matrix: {sparsity: [0.8, 0.9]}                   -> prune-0.8, prune-0.9
        method: {name: gradual_magnitude, final_sparsity: "${matrix.sparsity}"}
      - name: compare
        compare: {jobs: [prune]}                         waits for both, and trains nothing
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prunus.configs.errors import ConfigError, RecipeErrors
from prunus.configs.reading.expand import expand, override
from prunus.configs.reading.explain import explain
from prunus.configs.reading.graph import REFERENCES, check_graph, in_order, link_cells
from prunus.configs.reading.places import Places
from prunus.configs.reading.yaml_text import MAX_BYTES, parse
from prunus.configs.reading.yaml_text import Path as KeyPath
from prunus.configs.specs.campaign import Campaign
from prunus.configs.specs.comparison import ComparisonSpec
from prunus.configs.specs.job import JobSpec
from prunus.configs.specs.union import AnySpec, is_comparison


def load_file(path: Path, overrides: Sequence[str] = (), base: Path | None = None) -> Campaign:
    """Read a recipe from a file; see ``load_text``.

    Raises:
        ConfigError: The file cannot be read, or anything ``load_text`` raises.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(4 * MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", file=str(path), remedy="see `prunus recipes` for names"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", file=str(path), remedy="save it as UTF-8") from error
    except ValueError as error:
        raise ConfigError(f"not a file name: {str(path)!r}", remedy="see `prunus recipes` for names") from error
    return load_text(text, file=str(path), overrides=overrides, base=base)


def load_text(
    text: str, *, file: str = "<string>", overrides: Sequence[str] = (), base: Path | None = None
) -> Campaign:
    """Read a recipe.

    Args:
        text: YAML, one document.
        file: Name used in messages.
        overrides: ``a.b=value`` with YAML values; in a campaign ``jobs.NAME.x=``, ``defaults.x=`` or ``vars.x=``.
        base: Directory against which relative data files and model directories are made absolute; None: left as
            they are.

    Raises:
        ConfigError: One mistake; RecipeErrors for several.
    """
    document, lines = parse(text, file)
    if not isinstance(document, dict):
        raise ConfigError("a recipe is a mapping of keys", file=file, line=1, remedy="see `prunus recipes`")
    places = Places(file, lines)
    for item in overrides:
        override(document, places, item)
    is_campaign = "jobs" in document
    expanded = expand(document, places)
    link_cells([(job.written_name, job.cell, job.fields) for job in expanded], file)
    errors: list[ConfigError] = []
    jobs: list[tuple[AnySpec, int | None]] = []
    for job in expanded:
        prefix: KeyPath = ("jobs", job.index) if is_campaign else ()
        if base is not None:
            _absolute(job.fields, base, prefix, places)
        try:
            kind = ComparisonSpec if is_comparison(job.fields) else JobSpec
            jobs.append((kind.model_validate(job.fields), places.line(prefix)))
        except ValidationError as error:
            errors += explain(error, prefix, places)
    if not errors:
        errors += check_graph(jobs, file)
    _raise(errors)
    try:
        return Campaign(
            name=document.get("campaign"),
            labels=document.get("labels") or {} if is_campaign else {},
            max_parallel=document.get("max_parallel"),
            jobs=tuple(in_order([spec for spec, _ in jobs])),
        )
    except ValidationError as error:
        _raise(list(explain(error, (), places, root="campaign")))
        raise


def _raise(errors: Sequence[ConfigError]) -> None:
    """Raise what was found, each mistake once: what stands in ``defaults`` is found in every job."""
    unique = list({str(error): error for error in errors}.values())
    if unique:
        raise unique[0] if len(unique) == 1 else RecipeErrors(unique)


def _absolute(job: dict[str, Any], base: Path, prefix: KeyPath, places: Places) -> None:
    """Make relative data files and model directories absolute, in place."""

    def absolute(text: str, path: KeyPath) -> str:
        try:
            return str((base / Path(text).expanduser()).resolve())
        except (OSError, RuntimeError, ValueError) as error:
            raise places.error(f"not a usable path: {text!r} ({error})", (*prefix, *path)) from error

    for path, source in _data_sources(job):
        if isinstance(source.get("files"), list):
            source["files"] = [
                absolute(name, (*path, "files", i)) if isinstance(name, str) and name and "://" not in name else name
                for i, name in enumerate(source["files"])
            ]
        if isinstance(source.get("clips"), str):
            source["clips"] = absolute(source["clips"], (*path, "clips"))
    rules = task.get("transcripts") if isinstance(task := job.get("task"), dict) else None
    if isinstance(rules, dict) and isinstance(name := rules.get("vocabulary"), str) and name not in {"train", "model"}:
        rules["vocabulary"] = absolute(name, ("task", "transcripts", "vocabulary"))
    for room, key in REFERENCES:
        owner = job.get(room)
        value = owner.get(key) if isinstance(owner, dict) else None
        if isinstance(value, str) and _is_relative(value):
            owner[key] = absolute(value, (room, key))  # type: ignore[index]
    compare = job.get("compare")
    if isinstance(compare, dict) and isinstance(compare.get("jobs"), list):
        compare["jobs"] = [
            absolute(item, ("compare", "jobs", i)) if isinstance(item, str) and _is_relative(item) else item
            for i, item in enumerate(compare["jobs"])
        ]


def _is_relative(reference: str) -> bool:
    return reference.startswith(("./", "../", "~")) or reference in {".", ".."}


def _data_sources(job: dict[str, Any]) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Every mapping under ``task.data`` that says where a split comes from, with its place."""
    task = job.get("task")
    data = task.get("data") if isinstance(task, dict) else None
    for split in ("train", "eval"):
        written = data.get(split) if isinstance(data, dict) else None
        path: KeyPath = ("task", "data", split)
        if isinstance(written, dict):
            yield path, written
        for i, source in enumerate(written if isinstance(written, list) else ()):
            if isinstance(source, dict):
                yield (*path, i), source
