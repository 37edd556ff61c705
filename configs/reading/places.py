"""Where in what a person wrote a value stands: file and line, or the ``--set`` that put it there."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from prunus.configs.errors import ConfigError
from prunus.configs.reading.yaml_text import Path, dotted


@dataclass
class Places:
    """Lines of one recipe, and the overrides applied to it.

    Attributes:
        file: Name for messages.
        lines: 1-based line of every key and item.
        overrides: ``--set`` text by the path that it wrote.
    """

    file: str
    lines: Mapping[Path, int]
    overrides: dict[Path, str] = field(default_factory=dict)

    def line(self, path: Path) -> int | None:
        """Line of the path, else of the nearest thing around it."""
        return self.lines.get(self._longest(path))

    def error(self, what: str, path: Path = (), remedy: str = "", *, at: Path | None = None) -> ConfigError:
        """Build the error for a path. What a job takes from ``defaults`` is shown there, once for all jobs.

        Args:
            at: Where the line is taken from, if it is not ``path``.
        """
        path, at = self._written(path), self._written(at if at is not None else path)
        for length in range(len(at), 0, -1):
            if at[:length] in self.overrides:
                return ConfigError(what, path=dotted(path), file=self.overrides[at[:length]], remedy=remedy)
        return ConfigError(what, path=dotted(path), file=self.file, line=self.line(at), remedy=remedy)

    def _written(self, path: Path) -> Path:
        if len(path) > 2 and path[0] == "jobs":
            below: Path = ("defaults", *path[2:])
            if len(self._longest(below)) + 1 > max(len(self._longest(path)), 2):
                return below
        return path

    def _longest(self, path: Path) -> Path:
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines or path[:length] in self.overrides:
                return path[:length]
        return ()
