"""What ``prunus compare`` shows. Pure: takes a comparison, returns renderables."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from prunus.configs.artifacts.comparison.grids import grids
from prunus.configs.artifacts.comparison.result import MOST_IN_A_TABLE, Comparison, Matrix
from prunus.service.cli.shown.words import number

_NO_PAIR = "–"


def page(comparison: Comparison, title: str | None = None) -> Group:
    """Metrics against sparsity and over two keys, both IOU matrices, what was left out."""
    parts: list[RenderableType] = [_metrics(comparison, title), *_grids(comparison)]
    if len(comparison.masked) > MOST_IN_A_TABLE:
        what = f"{len(comparison.masked)} masks make too wide a matrix: --out DIR draws it, --json prints it"
        parts += [Text(""), Text(what)]
    elif len(comparison.masked) > 1:
        names = comparison.masked
        kept = _matrix("kept", names, comparison.iou_kept, comparison.random_iou_kept)
        removed = _matrix("removed", names, comparison.iou_removed, comparison.random_iou_removed)
        parts += [Text(""), *kept, Text(""), *removed]
    if comparison.notes:
        parts += [Text(""), *(Text(f"left out: {note}") for note in comparison.notes)]
    return Group(*parts)


def _metrics(comparison: Comparison, title: str | None) -> Table:
    names = comparison.metric_names
    table = _table("JOB", *(key.upper() for key in comparison.by), "SPARSITY", *names)
    for entry in comparison.entries:
        cells = [entry.name, *entry.group, "" if entry.sparsity is None else f"{entry.sparsity:.4f}"]
        table.add_row(*(Text(cell) for cell in cells), *(Text(number(entry.metrics.get(name))) for name in names))
    table.title, table.title_justify = title, "left"
    return table


def _grids(comparison: Comparison) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for metric in comparison.metric_names:
        for grid in grids(comparison, metric):
            rows, columns = comparison.by[-2:]
            if not grid.is_small:
                parts += [Text(""), Text(f"{metric}: {grid.title}: {rows} x {columns} is too wide: --out DIR draws it")]
                continue
            table = _table(f"{rows} / {columns}".upper(), *grid.columns)
            for name, values in zip(grid.rows, grid.values, strict=True):
                table.add_row(Text(name), *(Text(_cell(value)) for value in values))
            parts += [Text(""), Text(f"{metric}: {grid.title}", style="bold"), table]
    return parts


def _matrix(what: str, names: tuple[str, ...], measured: Matrix, random: Matrix) -> list[RenderableType]:
    """Below the diagonal what was measured, above it what chance gives; its range stands in the head."""
    chance = [value for i, row in enumerate(random) for value in row[:i] if value is not None]
    low, high = (f"{value:.2f}" for value in (min(chance), max(chance)))
    span = low if low == high else f"{low} to {high}"
    title = f"IOU of the {what} positions (below the diagonal; above it masks drawn at random: {span})"
    table = _table("MASK", *(str(place + 1) for place in range(len(names))))
    for i, name in enumerate(names):
        row = [Text(_cell(measured[i][j])) if j <= i else Text(_cell(random[i][j]), "dim") for j in range(len(names))]
        table.add_row(Text(f"{i + 1} {name}"), *row)
    return [Text(title, style="bold"), table]


def _cell(value: float | None) -> str:
    return _NO_PAIR if value is None else f"{value:.4f}"


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(Text(header), no_wrap=header in {"JOB", "MASK"}, overflow="fold")
    return table
