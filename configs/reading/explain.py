"""pydantic's report of a job or campaign, told in our words: path, what, got, remedy."""

import difflib
import functools
import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml
from pydantic import ValidationError

from prunus.configs.errors import ConfigError
from prunus.configs.reading.places import Places
from prunus.configs.reading.yaml_text import Path as KeyPath
from prunus.configs.reading.yaml_text import dotted
from prunus.configs.specs.comparison import ComparisonSpec
from prunus.configs.specs.job import JobSpec

Schema = dict[str, Any]

_WORDS = {
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
    "dict_type": "must be a mapping of keys",
    "tuple_type": "must be a list",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
}


def explain(error: ValidationError, prefix: KeyPath, places: Places, *, root: str = "") -> Iterator[ConfigError]:
    """Yield one error of ours for each of pydantic's.

    Args:
        prefix: Path of the validated mapping in the file.
        root: Name of the first path element in the file, where it differs from the model's (``campaign`` for ``name``).
    """
    for item in error.errors(include_url=False):
        loc = tuple(item["loc"])
        nodes = list(_nodes(loc))
        path = (*prefix, *((root, *loc[1:]) if root and loc[:1] == ("name",) else _written(loc)))
        kind = item["type"]
        if kind == "union_tag_invalid":
            tags = [tag.strip(" '") for tag in item["ctx"]["expected_tags"].split(",")]
            yield places.error(f"unknown {loc[-1]} {item['ctx']['tag']!r}", (*path, "name"), _known(item, tags))
        elif kind == "union_tag_not_found":
            tags = sorted({tag for node in nodes for tag in node.get("discriminator", {}).get("mapping", {})})
            yield places.error("is missing", (*path, "name"), f"known: {', '.join(tags)}", at=path)
        elif kind == "extra_forbidden":
            yield places.error(f"unknown key {loc[-1]!r}", path, _meant(str(loc[-1]), loc[:-1]))
        elif kind == "missing":
            yield places.error("is missing", path, _description(nodes))
        elif kind == "value_error":
            what, _, remedy = item["msg"].removeprefix("Value error, ").partition("; ")
            yield places.error(what, path, remedy, at=(*path, *_named_field(what)))
        else:
            what = _WORDS.get(kind) or item["msg"].replace("Input should", "must").replace("String should", "must")
            remedy = _form(kind, item["input"]) or ("" if kind == "literal_error" else _description(nodes))
            yield places.error(f"{what}, got {_shown(item['input'])}", path, remedy)


def _known(item: Any, tags: list[str]) -> str:
    close = difflib.get_close_matches(str(item["ctx"]["tag"]), tags, n=1)
    return f"known: {', '.join(tags)}" + (f"; did you mean {close[0]!r}?" if close else "")


def _form(kind: str, value: Any) -> str:
    """Say how the value is written, where only its form is wrong."""
    if kind == "tuple_type" and isinstance(value, str | int | float):
        return f"write [{value}]"
    if kind == "string_type" and isinstance(value, bool | int | float):
        return "put it in quotes"
    if kind == "model_attributes_type" and isinstance(value, str):
        return f"write {{name: {value}}}"
    return ""


def _shown(value: Any) -> str:
    try:
        return str(yaml.safe_dump(value, default_flow_style=True, width=10_000)).split("\n")[0][:80]
    except yaml.YAMLError:
        return repr(value)[:80]


def _named_field(what: str) -> KeyPath:
    """Take the field that a message begins with (``train.batch_size 10 cannot ...``), for its line."""
    found = re.match(r"[a-z_]+(\.[a-z_]+)*(?= )", what)
    return tuple(found.group().split(".")) if found else ()


def _meant(key: str, around: KeyPath) -> str:
    known = sorted({name for node in _nodes(around) for name in node.get("properties", {})})
    close = difflib.get_close_matches(key, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    elsewhere = [path for path in _all_fields() if path.rsplit(".", 1)[-1] == key]
    if len(elsewhere) == 1 and elsewhere[0] != dotted((*_written(around), key)):
        return f"it belongs to {elsewhere[0]}"
    return f"known: {', '.join(known)}" if known else ""


def _description(nodes: Iterable[Schema]) -> str:
    """First sentence of the field's docstring: unit and range."""
    for node in nodes:
        text = " ".join(str(node.get("description", "")).split())
        if text and "properties" not in node:
            sentence = re.split(r"(?<=[^.]{3})[.;] (?=[A-Z`])", text.removesuffix("."))[0]
            return sentence.replace("``", "")
    return ""


@functools.cache
def _schema() -> Schema:
    """All that a job of either kind may say; no two fields of one name differ between the kinds."""
    training, comparing = (kind.model_json_schema(by_alias=True) for kind in (JobSpec, ComparisonSpec))
    return {
        **training,
        "properties": comparing["properties"] | training["properties"],
        "$defs": comparing["$defs"] | training["$defs"],
    }


def _nodes(loc: KeyPath) -> Iterator[Schema]:
    """Schemas of one place of a job; ``loc`` is pydantic's, with the kinds of unions inside."""
    node: Schema = _schema()
    for part in loc:
        node = _resolve(node)
        kinds = node.get("discriminator", {}).get("mapping", {})
        if part in kinds:
            node = {"$ref": kinds[str(part)]}
        elif part in node.get("properties", {}):
            node = node["properties"][part]
        elif isinstance(part, int):
            node = node.get("items") or {}
        else:
            return
    yield node
    yield _resolve(node)


def _resolve(node: Schema) -> Schema:
    """Follow references and ``| None``; a union of kinds stays as it is."""
    while "$ref" in node or ("anyOf" in node and "discriminator" not in node):
        if "$ref" in node:
            node = _schema()["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        else:
            node = next((option for option in node["anyOf"] if option.get("type") != "null"), {})
    return node


def _written(loc: KeyPath) -> KeyPath:
    """Take the kinds of unions out of pydantic's path: nobody wrote them there."""
    return tuple(part for i, part in enumerate(loc) if i == 0 or part not in _kinds(loc[:i]))


def _kinds(loc: KeyPath) -> set[str]:
    return {kind for node in _nodes(loc) for kind in node.get("discriminator", {}).get("mapping", {})}


@functools.cache
def _all_fields() -> tuple[str, ...]:
    found: dict[str, None] = {}

    def visit(node: Schema, path: KeyPath) -> None:
        node = _resolve(node)
        for ref in node.get("discriminator", {}).get("mapping", {}).values():
            visit({"$ref": ref}, path)
        for name, child in node.get("properties", {}).items():
            found[dotted((*path, name))] = None
            visit(child, (*path, name))

    visit(_schema(), ())
    return tuple(found)
