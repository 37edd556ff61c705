"""A metric over two keys of a comparison, as tables: methods x languages; source of a mask x target. Pure."""

from collections import defaultdict
from dataclasses import dataclass

from prunus.configs.artifacts.comparison.result import MOST_IN_A_TABLE, Comparison

_LEAST_FILLED = 0.5
"""Of a table's cells: with as few or fewer there is nothing to see."""
DECIMALS = 3
"""To which two sparsities are one."""


@dataclass(frozen=True)
class Grid:
    """One table.

    Attributes:
        panel: What all of it has in common: values of the keys ahead of the last two, and the sparsity, as ``0.5``.
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
        """``PARP / sparsity 0.5``."""
        *common, sparsity = self.panel
        return " / ".join([*common, f"sparsity {sparsity}"])

    @property
    def is_small(self) -> bool:
        """Whether a person reads it as numbers."""
        return max(len(self.rows), len(self.columns)) <= MOST_IN_A_TABLE


def grids(comparison: Comparison, metric: str) -> list[Grid]:
    """Return a table of ``metric`` for each value of the keys ahead of the last two and each sparsity, in the order of
    the entries; none for a single key, and none with fewer than two rows or two columns, or with half its cells empty.

    Rows and columns have one order in all tables; if they are of one kind (source and target), also one order of both.
    """
    if len(comparison.by) < 2:
        return []
    panels: dict[tuple[str, ...], dict[tuple[str, str], list[float]]] = {}
    for entry in comparison.entries:
        if metric in entry.metrics and entry.sparsity is not None and len(entry.group) == len(comparison.by):
            *common, row, column = entry.group
            cells = panels.setdefault((*common, f"{round(entry.sparsity, DECIMALS):g}"), defaultdict(list))
            cells[row, column].append(entry.metrics[metric])
    order = _order([entry.group[-2:] for entry in comparison.entries if len(entry.group) == len(comparison.by)])
    return [grid for panel, cells in panels.items() if (grid := _grid(panel, cells, order)) is not None]


def _order(places: list[tuple[str, ...]]) -> tuple[list[str], list[str]]:
    """Of rows and of columns."""
    rows, columns = (list(dict.fromkeys(place[i] for place in places)) for i in (0, 1))
    return (rows, rows) if set(rows) == set(columns) else (rows, columns)


def _grid(
    panel: tuple[str, ...], cells: dict[tuple[str, str], list[float]], order: tuple[list[str], list[str]]
) -> Grid | None:
    rows, columns = (tuple(name for name in order[i] if any(place[i] == name for place in cells)) for i in (0, 1))
    if min(len(rows), len(columns)) < 2 or len(cells) <= _LEAST_FILLED * len(rows) * len(columns):
        return None
    means = {place: sum(values) / len(values) for place, values in cells.items()}
    return Grid(panel, rows, columns, tuple(tuple(means.get((row, column)) for column in columns) for row in rows))
