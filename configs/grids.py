"""A metric over two keys of a comparison, as tables: methods x languages; source of a mask x target. Pure."""

from collections import defaultdict
from dataclasses import dataclass

from configs.comparison import MOST_IN_A_TABLE, Comparison

_LEAST_FILLED = 0.5
"""A table with more holes than this shows nothing."""


@dataclass(frozen=True)
class Grid:
    """One table.

    Attributes:
        panel: What all of it has in common: values of the keys ahead of the last two, and the sparsity, as ``0.50``.
        rows: Values of the last key but one.
        columns: Values of the last key.
        values: By row and column; None where nothing was measured. The mean, where several jobs were.
    """

    panel: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]

    @property
    def title(self) -> str:
        """``PARP / sparsity 0.50``."""
        *common, sparsity = self.panel
        return " / ".join([*common, f"sparsity {sparsity}"])

    @property
    def is_small(self) -> bool:
        """Whether a person reads it as numbers."""
        return max(len(self.rows), len(self.columns)) <= MOST_IN_A_TABLE


def grids(comparison: Comparison, metric: str) -> list[Grid]:
    """Return a table of ``metric`` for each value of the keys ahead of the last two and each sparsity (to two digits),
    in the order of the entries. None for a single key, and none with fewer than two rows, two columns or half its
    cells.
    """
    if len(comparison.by) < 2:
        return []
    panels: dict[tuple[str, ...], dict[tuple[str, str], list[float]]] = {}
    for entry in comparison.entries:
        if metric in entry.metrics and entry.sparsity is not None and len(entry.group) == len(comparison.by):
            *common, row, column = entry.group
            cells = panels.setdefault((*common, f"{entry.sparsity:.2f}"), defaultdict(list))
            cells[row, column].append(entry.metrics[metric])
    return [grid for panel, cells in panels.items() if (grid := _grid(panel, cells)) is not None]


def _grid(panel: tuple[str, ...], cells: dict[tuple[str, str], list[float]]) -> Grid | None:
    rows, columns = (tuple(dict.fromkeys(part)) for part in zip(*cells, strict=True))
    if min(len(rows), len(columns)) < 2 or len(cells) < _LEAST_FILLED * len(rows) * len(columns):
        return None
    means = {place: sum(values) / len(values) for place, values in cells.items()}
    return Grid(panel, rows, columns, tuple(tuple(means.get((row, column)) for column in columns) for row in rows))
