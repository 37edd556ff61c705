"""YAML as people mean it: safe, bounded, with line numbers, without YAML 1.1's surprises.

``no`` stays a string (it is a language), ``5e-5`` is a number, a key written twice is refused.
"""

import re
from typing import Any

import yaml

from configs.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_ALIASES = 100

Path = tuple[str | int, ...]
"""Keys and indices from the document's root."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the booleans and floats of YAML 1.2, and no dates."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in resolvers if tag.rsplit(":", 1)[-1] not in {"bool", "float", "timestamp"}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF")
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
    "-+0123456789.",
)


def parse(text: str, file: str) -> tuple[Any, dict[Path, int]]:
    """Read one YAML document.

    Returns:
        The plain value, and the 1-based line of every key and item by its path.

    Raises:
        ConfigError: Not YAML, too large, too many aliases, a key twice.
    """
    if len(text.encode()) > MAX_BYTES:
        raise ConfigError(f"larger than {MAX_BYTES:,} bytes", file=file, remedy="split it into several campaigns")
    try:
        aliases = sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_Loader))
        if aliases > MAX_ALIASES:
            raise ConfigError(f"{aliases} aliases, at most {MAX_ALIASES} are read", file=file)
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            raise ConfigError("the file is empty", file=file, remedy="see `prunus recipes` for examples")
        lines: dict[Path, int] = {}
        _walk(node, (), lines, file, set())
        return yaml.load(text, Loader=_Loader), lines  # noqa: S506 - _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(
            f"not YAML: {error.problem or error.context}",
            file=file,
            line=mark.line + 1 if mark else None,
            remedy="check indentation, quotes and colons around this line",
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML: {error}", file=file) from error


def _walk(node: yaml.Node, path: Path, lines: dict[Path, int], file: str, open_nodes: set[int]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if id(node) in open_nodes:
        raise ConfigError("an alias refers to what contains it", file=file, line=node.start_mark.line + 1)
    inside = open_nodes | {id(node)}
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key must be a plain word", file=file, line=line)
            key = (*path, key_node.value)
            if key in lines:
                raise ConfigError(
                    f"the key {key_node.value!r} stands twice (first on line {lines[key]})",
                    path=dotted(path),
                    file=file,
                    line=line,
                    remedy="keep one of the two",
                )
            lines[key] = line
            _walk(value_node, key, lines, file, inside)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*path, index), lines, file, inside)


def dotted(path: Path) -> str:
    """Write a path as people do: ``jobs[1].method.name``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
