"""From what a user names to a campaign: shipped recipes and files."""

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from prunus.configs import Campaign, ConfigError, load_text
from prunus.configs.reading.yaml_text import parse

SHIPPED = Path(str(resources.files("prunus.configs.recipes")))
"""Where the recipes of the package lie."""


@dataclass(frozen=True)
class Recipe:
    """A shipped recipe."""

    name: str
    """Path below ``configs/recipes`` without ``.yaml``, for example ``prune_ofa/demo``."""
    path: Path
    description: str
    """First sentence of the comment that it begins with."""


def shipped_recipes() -> list[Recipe]:
    """List what ``prunus submit NAME`` knows, by name."""
    found = sorted(SHIPPED.rglob("*.yaml"))
    return [Recipe(p.relative_to(SHIPPED).with_suffix("").as_posix(), p, _first_sentence(p)) for p in found]


def find_recipe(name: str) -> Path:
    """Return the file that a user means: a path that exists, or the name of a shipped recipe.

    Raises:
        ConfigError: Neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    by_name = {recipe.name: recipe.path for recipe in shipped_recipes()}
    wanted = name.removesuffix(".yaml")
    if wanted in by_name:
        return by_name[wanted]
    close = difflib.get_close_matches(wanted, by_name, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    what = "is a directory" if path.is_dir() else "there is no such file, and no shipped recipe of that name"
    raise ConfigError(what, file=name, remedy=f"{hint}`prunus recipes` lists the shipped ones")


def load_recipe(
    file: str, overrides: Sequence[str] = (), name: str | None = None, max_parallel: int | None = None
) -> Campaign:
    """Read what a user named; relative data files are taken from the working directory.

    Args:
        file: A path, or the name of a shipped recipe.
        overrides: ``a.b=value``.
        name: Another name for the campaign, or for the only job of a file without ``jobs``.
        max_parallel: How many of its jobs may hold resources at one time; None: what the file says.

    Raises:
        ConfigError: Any mistake in the file, the overrides or the name.
    """
    path = find_recipe(file)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", file=str(path)) from error
    given = list(overrides)
    if name is not None:
        document, _ = parse(text, str(path))
        key = "campaign" if isinstance(document, dict) and "jobs" in document else "name"
        given.append(f"{key}={json.dumps(name)}")
    if max_parallel is not None:
        given.append(f"max_parallel={max_parallel}")
    return load_text(text, file=str(path), overrides=given, base=Path.cwd())


def _first_sentence(path: Path) -> str:
    """The first sentence of the comment that a file begins with."""
    lines: list[str] = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                break
            lines.append(line.strip("# \n"))
    return re.split(r"(?<=\.)\s", " ".join(lines).strip(), maxsplit=1)[0]
