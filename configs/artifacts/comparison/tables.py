"""A comparison as tables in Markdown. Pure."""

from collections.abc import Sequence
from typing import Any

from prunus.configs.artifacts.comparison.grids import Grid, grids
from prunus.configs.artifacts.comparison.result import MOST_IN_A_TABLE, Comparison, Matrix

_IOU = (
    ("IOU of the kept positions", "iou_kept", "random_iou_kept"),
    ("IOU of the removed positions", "iou_removed", "random_iou_removed"),
)


def report(comparison: Comparison, title: str, figures: Sequence[str] = ()) -> str:
    """Write the page.

    Args:
        figures: Paths of the pictures, relative to the page.
    """
    parts = [f"# {title}", _metrics(comparison), _grids(comparison)]
    if comparison.masked:
        parts.append(_agreement(comparison))
    parts.append(_layers(comparison))
    if comparison.notes:
        parts.append("## Left out\n\n" + "\n".join(f"- {note}" for note in comparison.notes))
    if figures:
        parts.append("## Pictures\n\n" + "\n\n".join(f"![{path}]({path})" for path in figures))
    return "\n\n".join(part for part in parts if part) + "\n"


def _metrics(comparison: Comparison) -> str:
    names = comparison.metric_names
    rows = [
        [e.name, " / ".join(e.group), _number(e.sparsity), *(_number(e.metrics.get(name)) for name in names)]
        for e in comparison.entries
    ]
    head = ["job", " / ".join(comparison.by), "sparsity", *names]
    return "## Metrics against sparsity\n\nSparsity: share removed of the masked weights.\n\n" + _table(head, rows)


def _grids(comparison: Comparison) -> str:
    found = [(metric, grid) for metric in comparison.metric_names for grid in grids(comparison, metric)]
    rows, columns = comparison.by[-2:] if found else ("", "")
    parts = [
        f"### {metric}, {rows} x {columns}: {grid.title}\n\n{_grid_table(grid, f'{rows} / {columns}')}"
        for metric, grid in found
        if grid.is_small
    ]
    if wide := sum(not grid.is_small for _, grid in found):
        parts.append(f"{wide} matrices {rows} x {columns} are too wide for a page: see the pictures.")
    return "\n\n".join(parts)


def _grid_table(grid: Grid, corner: str) -> str:
    rows = [[name, *map(_number, values)] for name, values in zip(grid.rows, grid.values, strict=True)]
    return _table([corner, *grid.columns], rows)


def _agreement(comparison: Comparison) -> str:
    names = comparison.masked
    if len(names) > MOST_IN_A_TABLE:
        return f"## Masks\n\n{len(names)} masks: the matrices are in `comparison.json` and in the pictures."
    parts = [
        "## Masks\n\nBelow the diagonal: the IOU. Above it, *in italics*: what masks drawn at random, which keep as "
        "many of each weight, would show. An IOU says something only where it is larger."
    ]
    for title, measured, random in _IOU:
        table = _halves(getattr(comparison, measured), getattr(comparison, random))
        rows = [[name, *row] for name, row in zip(names, table, strict=True)]
        parts.append(f"### {title}\n\n" + _table(["", *names], rows))
    flipped = [[name, *map(_number, row)] for name, row in zip(names, comparison.flipped, strict=True)]
    parts.append("### Share of the positions whose bit differs\n\n" + _table(["", *names], flipped))
    return "\n\n".join(parts)


def _halves(measured: Matrix, random: Matrix) -> list[list[str]]:
    return [
        [_number(measured[i][j]) if j <= i else f"*{_number(random[i][j])}*" for j in range(len(measured))]
        for i in range(len(measured))
    ]


def _layers(comparison: Comparison) -> str:
    masked = [entry for entry in comparison.entries if entry.sparsity_by_weight]
    if not masked or len(masked) > MOST_IN_A_TABLE:
        return ""
    weights = dict.fromkeys(name for entry in masked for name in entry.sparsity_by_weight)
    rows = [[name, *(_number(entry.sparsity_by_weight.get(name)) for entry in masked)] for name in weights]
    return "## Sparsity of each weight\n\n" + _table(["weight", *(entry.name for entry in masked)], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.4f}" if abs(value) < 10 else f"{value:.4g}"
