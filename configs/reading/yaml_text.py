"""YAML as people mean it: safe, bounded, with line numbers, without YAML 1.1's surprises.

``no`` stays a string (it is a language), ``5e-5`` is a number, ``012`` is twelve, ``1:30`` and dates are strings; a key
written twice, a tag, a control character and a number that no computer holds are refused.
"""

import math
import re
from typing import Any

import yaml

from prunus.configs.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_ALIASES = 100
MAX_DEPTH = 50
MAX_NODES = 200_000
"""Keys, items and values after aliases are followed: a handful of nested aliases could stand for billions."""

Path = tuple[str | int, ...]
"""Keys and indices from the document's root."""

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """SafeLoader with the booleans and numbers of YAML 1.2, no dates, no tags, and bounds."""

    file = ""
    aliases = 0
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > MAX_ALIASES:
                raise ConfigError(f"more than {MAX_ALIASES} aliases", file=self.file, line=line, remedy="use vars:")
        elif getattr(event, "tag", None) is not None:
            raise ConfigError(
                f"the tag {event.tag} is not read", file=self.file, line=line, remedy="write the value without a tag"
            )
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ConfigError(f"nested more than {MAX_DEPTH} levels deep", file=self.file, line=line)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    # Python refuses to read thousands of digits; nothing here needs more than 64 bits.
    value = int(text, base) if len(text) < 70 else 2**64
    if abs(value) >= 2**63:
        raise ConfigError(f"the number {text[:40]} is too large", file=loader.file, line=node.start_mark.line + 1)
    return value


def _number(loader: _Loader, node: yaml.ScalarNode) -> float:
    value = float(node.value)
    if not math.isfinite(value):
        raise ConfigError(f"the number {node.value[:40]} is too large", file=loader.file, line=node.start_mark.line + 1)
    return value


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in resolvers if tag.rsplit(":", 1)[-1] in {"null", "merge"}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_TAG + "bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF")
_Loader.add_implicit_resolver(
    _TAG + "int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", re.ASCII), "-+0123456789"
)
_Loader.add_implicit_resolver(
    _TAG + "float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
    "-+0123456789.",
)
_Loader.add_constructor(_TAG + "int", _integer)
_Loader.add_constructor(_TAG + "float", _number)


def parse(text: str, file: str) -> tuple[Any, dict[Path, int]]:
    """Read one YAML document.

    Returns:
        The plain value (no part of it stands in two places), and the 1-based line of every key and item by its path.

    Raises:
        ConfigError: Not YAML, empty, too large, too deep, too many aliases, a key twice.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"larger than {MAX_BYTES:,} characters", file=file, remedy="split it into several campaigns")
    try:
        loader = _Loader(text)
        loader.file = file
        node = loader.get_single_node()
        if node is None:
            raise ConfigError("is empty", file=file, remedy="see `prunus recipes` for examples")
        lines: dict[Path, int] = {}
        _walk(node, (), lines, file)
        return _unshare(loader.construct_document(node)), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(
            f"not YAML: {error.problem or error.context}",
            file=file,
            line=mark.line + 1 if mark else None,
            remedy=_remedy(error.problem or ""),
        ) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position] if isinstance(error.position, int) else ""
        raise ConfigError(
            f"not YAML: the character {chr(error.character)!r} is not allowed"
            if isinstance(error.character, int)
            else f"not YAML: {error.reason}",
            file=file,
            line=before.count("\n") + 1,
            remedy="save the file as plain UTF-8 text",
        ) from error


def _remedy(problem: str) -> str:
    if "'\\t'" in problem:
        return "indent with spaces, not tabs"
    if "another document" in problem:
        return "keep one document: remove the line ---"
    return "check indentation, quotes and colons around this line"


def _walk(node: yaml.Node, path: Path, lines: dict[Path, int], file: str) -> None:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if len(lines) > MAX_NODES:
        raise ConfigError(f"more than {MAX_NODES:,} values, aliases followed", file=file, remedy="use fewer aliases")
    if len(path) > MAX_DEPTH:
        raise ConfigError("an alias refers to what contains it", file=file, line=line)
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = (*path, _key(key_node, path, file))
            if key in lines:
                raise ConfigError(
                    f"the key {key_node.value!r} stands twice (first on line {lines[key]})",
                    path=dotted(path),
                    file=file,
                    line=key_node.start_mark.line + 1,
                    remedy="keep one of the two",
                )
            lines[key] = key_node.start_mark.line + 1
            _walk(value_node, key, lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*path, index), lines, file)
    elif node.tag == _TAG + "str" and _CONTROL.search(node.value):
        raise ConfigError(f"has a control character: {node.value[:40]!r}", path=dotted(path), file=file, line=line)


def _key(node: yaml.Node, path: Path, file: str) -> str:
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.ScalarNode):
        raise ConfigError("a key must be a plain word", path=dotted(path), file=file, line=line)
    if node.tag not in {_TAG + "str", _MERGE}:
        raise ConfigError(
            f"the key {node.value or 'null'} is not text",
            path=dotted(path),
            file=file,
            line=line,
            remedy=f'write "{node.value}" with quotes, if it is meant as a name',
        )
    if not node.value or _CONTROL.search(node.value):
        raise ConfigError(f"not a key: {node.value[:40]!r}", path=dotted(path), file=file, line=line)
    return str(node.value)


def _unshare(value: Any) -> Any:
    """Copy so that an alias and its anchor are two things: changing one must not change the other."""
    if isinstance(value, dict):
        return {key: _unshare(item) for key, item in value.items()}
    return [_unshare(item) for item in value] if isinstance(value, list) else value


def dotted(path: Path) -> str:
    """Write a path as people do: ``jobs[1].method.name``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
