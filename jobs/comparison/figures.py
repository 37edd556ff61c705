"""Pictures of a comparison: masks against masks, metrics against sparsity and over two keys, sparsity of each weight.

Colours of ``cividis``, and shapes, dashes or numbers besides colours. Up to 12 masks have their values in the cells;
with 100 the labels still fit.

``python -m prunus.jobs.comparison.figures FOLDER`` draws the comparison that it gets as JSON on stdin and prints the
names of the files: for processes that must not load matplotlib.
"""

import math
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from prunus.configs.artifacts.comparison.grids import DECIMALS, Grid, grids
from prunus.configs.artifacts.comparison.result import MOST_IN_A_TABLE, Comparison, Entry

_LONGEST_LABEL = 32
_MARKERS = "osD^vP*X<>"
_DASHES = ("-", "--", "-.", ":")
_MOST_GRIDS = 24
"""So many matrices of a metric are drawn."""


def main(arguments: Sequence[str]) -> int:
    """Draw the comparison on stdin into a folder; returns the exit code."""
    (folder,) = map(Path, arguments)
    comparison = Comparison.model_validate_json(sys.stdin.read())
    sys.stdout.writelines(f"{path.name}\n" for path in draw(comparison, folder))
    return 0


def draw(comparison: Comparison, directory: Path) -> list[Path]:
    """Draw everything that there is to draw; returns the files."""
    drawn = []
    for what in ("kept", "removed"):
        if len(comparison.masked) > 1:
            measured, random = getattr(comparison, f"iou_{what}"), getattr(comparison, f"random_iou_{what}")
            table = _halves(measured, random)
            drawn.append(_iou(comparison.masked, table, what, directory / f"iou_{what}.png"))
    for metric in comparison.metric_names:
        shown = [entry for entry in comparison.entries if metric in entry.metrics and entry.sparsity is not None]
        if shown:
            name = re.sub(r"[^A-Za-z0-9]+", "_", metric)
            drawn.append(_curves(shown, metric, comparison.by, directory / f"{name}_against_sparsity.png"))
            if tables := grids(comparison, metric):
                drawn.append(_grids(tables, metric, comparison.by[-2:], directory / f"{name}_matrix.png"))
    masked = [entry for entry in comparison.entries if entry.sparsity_by_weight]
    if masked:
        drawn.append(_weights(masked, directory / "sparsity_per_weight.png"))
    return drawn


def _halves(
    measured: Sequence[Sequence[float | None]], random: Sequence[Sequence[float | None]]
) -> np.ndarray[Any, Any]:
    """What was measured on and below the diagonal, what chance gives above it; NaN for None."""
    first, second = np.array(measured, dtype=float), np.array(random, dtype=float)
    return np.where(np.tri(len(first), dtype=bool), first, second)


def _iou(names: Sequence[str], table_NN: np.ndarray[Any, Any], what: str, path: Path) -> Path:
    num = len(names)
    side = num * float(np.clip(8.0 / num, 0.15, 0.62))
    figure, axes = plt.subplots(figsize=(side + 3.2, side + 2.4), layout="constrained")
    image = _heat_map(axes, table_NN, 0.0, 1.0)
    _label(axes.set_xticks, names, num, rotation=90)
    _label(axes.set_yticks, names, num)
    if num <= MOST_IN_A_TABLE:
        _write_values(axes, table_NN, image, 8)
    edge = [(i - 0.5 + shift, i - 0.5) for i in range(1, num) for shift in (0, 1)]
    stairs = [(0.5, -0.5), *edge, (num - 0.5, num - 0.5)]
    axes.plot(*zip(*stairs, strict=True), color="white", linewidth=3 if num <= MOST_IN_A_TABLE else 1)
    axes.set_title(
        f"IOU of the {what} positions\nbelow the white line: measured\nabove it: masks drawn at random",
        fontsize=9,
        loc="left",
    )
    figure.colorbar(image, label=f"IOU of the {what} positions", shrink=0.7)
    return _write(figure, path)


def _curves(shown: Sequence[Entry], metric: str, by: Sequence[str], path: Path) -> Path:
    figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
    groups: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for entry in shown:
        groups[entry.group].append(entry)
    # The first key has colours and dashes, the others have markers; alone it has markers too.
    firsts, others = (list(dict.fromkeys(part)) for part in zip(*((g[0], g[1:] or g) for g in groups), strict=True))
    colours = plt.get_cmap("cividis")(np.linspace(0.0, 0.92, len(firsts)))
    for values, entries in groups.items():
        group, first = " / ".join(values), firsts.index(values[0])
        colour, dash = colours[first], _DASHES[first % len(_DASHES)]
        marker = _MARKERS[others.index(values[1:] or values) % len(_MARKERS)]
        points = [(float(entry.sparsity or 0.0), entry.metrics[metric]) for entry in entries]
        if all(x == 0.0 for x, _ in points) and len(groups) > 1:
            # A model from which nothing was removed is what the others are measured by.
            level = float(np.mean([y for _, y in points]))
            axes.axhline(level, color="0.35", linestyle=dash, linewidth=1, marker=marker, label=f"{group} (sparsity 0)")
            continue
        means: dict[float, list[float]] = defaultdict(list)
        for x, y in points:
            means[round(x, DECIMALS)].append(y)
        line = sorted((x, float(np.mean(ys))) for x, ys in means.items())
        axes.plot(*zip(*line, strict=True), color=colour, linestyle=dash, linewidth=1.5)
        look = {"color": colour, "marker": marker, "mec": "black", "mew": 0.6, "ms": 7}
        axes.plot(*zip(*points, strict=True), linestyle="none", **look)
        axes.plot([], [], linestyle=dash, label=group, **look)
    axes.set(xlabel="sparsity (share of the masked weights that is removed)", ylabel=metric)
    axes.grid(alpha=0.3)
    columns = -(-len(groups) // 24)
    axes.legend(title=" / ".join(by), fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), ncols=columns)
    axes.set_title(f"{metric} against sparsity; a line joins the means", fontsize=9, loc="left")
    return _write(figure, path)


def _grids(tables: Sequence[Grid], metric: str, by: Sequence[str], path: Path) -> Path:
    """One heat map per table, two beside each other, in one scale of colours."""
    num, tables = len(tables), tables[:_MOST_GRIDS]
    across = min(2, len(tables))
    down = -(-len(tables) // across)
    size = max(max(len(grid.rows), len(grid.columns)) for grid in tables)
    side = size * float(np.clip(8.0 / size, 0.15, 0.62)) + 1.6
    figure, axes = plt.subplots(
        down, across, figsize=(across * side + 1.6, down * side + 0.6), layout="constrained", squeeze=False
    )
    arrays = [np.array(grid.values, dtype=float) for grid in tables]
    values = np.concatenate([array[np.isfinite(array)] for array in arrays])
    low, high = float(values.min()), float(values.max())
    for place in axes.flat[len(tables) :]:
        place.set_axis_off()
    for place, grid, table_RC in zip(axes.flat, tables, arrays, strict=False):
        image = _heat_map(place, table_RC, low, max(high, low + 1e-6))
        _label(place.set_xticks, grid.columns, size, rotation=90)
        _label(place.set_yticks, grid.rows, size)
        place.set(xlabel=by[1], ylabel=by[0])
        place.set_title(grid.title, fontsize=9, loc="left")
        if grid.is_small:
            _write_values(place, table_RC, image, 8)
    more = f" (the first {len(tables)} of {num})" if num > len(tables) else ""
    figure.suptitle(f"{metric}, {by[0]} x {by[1]}{more}", fontsize=10, x=0.01, ha="left")
    figure.colorbar(image, ax=axes, label=metric, shrink=0.7)
    return _write(figure, path)


def _weights(masked: Sequence[Entry], path: Path) -> Path:
    names = list(dict.fromkeys(name for entry in masked for name in entry.sparsity_by_weight))
    table_WN = np.array([[entry.sparsity_by_weight.get(name, np.nan) for entry in masked] for name in names])
    num = len(masked)
    width = num * float(np.clip(8.0 / num, 0.15, 0.62))
    figure, axes = plt.subplots(figsize=(width + 4.2, 0.17 * len(names) + 2.6), layout="constrained")
    low, high = np.floor(np.nanmin(table_WN) * 20) / 20, np.ceil(np.nanmax(table_WN) * 20) / 20
    image = _heat_map(axes, table_WN, low, max(high, low + 0.05))
    prefix, suffix = _common(names)
    _label(axes.set_xticks, [entry.name for entry in masked], num, rotation=90)
    axes.set_yticks(range(len(names)), [name[len(prefix) : len(name) - len(suffix)] for name in names], fontsize=6)
    if num <= MOST_IN_A_TABLE:
        _write_values(axes, table_WN, image, 6)
    left_out = f" ({prefix} … {suffix})" if prefix or suffix else ""
    axes.set_title(f"sparsity of each weight{left_out}", fontsize=9, loc="left")
    figure.colorbar(image, label="share of the weight's elements that is removed", shrink=0.7)
    return _write(figure, path)


def _heat_map(axes: plt.Axes, table: np.ndarray[Any, Any], low: float, high: float) -> Any:
    axes.set_facecolor("0.85")
    axes.patch.set(hatch="///", edgecolor="0.6")  # shows where there is no value
    return axes.imshow(np.ma.masked_invalid(table), aspect="auto", cmap="cividis", vmin=low, vmax=high)


def _cell(value: float) -> str:
    """Two digits; three, cut off, where two would make agreement whole."""
    return f"{math.floor(value * 1000) / 1000:.3f}" if 0.99 <= value < 1.0 else f"{value:.2f}"


def _write_values(axes: plt.Axes, table: np.ndarray[Any, Any], image: Any, size: int) -> None:
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            colour = "white" if image.norm(value) < 0.55 else "black"
            axes.text(column, row, _cell(float(value)), ha="center", va="center", color=colour, fontsize=size)


def _label(set_ticks: Any, names: Sequence[str], num: int, **look: Any) -> None:
    set_ticks(range(len(names)), [_short(name) for name in names], fontsize=9 if num <= MOST_IN_A_TABLE else 7, **look)


def _short(name: str) -> str:
    half = _LONGEST_LABEL // 2
    return name if len(name) <= _LONGEST_LABEL else f"{name[: half - 1]}…{name[-half:]}"


def _common(names: Sequence[str]) -> tuple[str, str]:
    """What all names begin and end with, in whole parts between dots."""
    if len(names) < 2:
        return "", ""
    parts = [name.split(".") for name in names]
    shortest = min(map(len, parts))
    first = min(_num_equal(list(zip(*parts, strict=False))), shortest - 1)
    last = min(_num_equal(list(zip(*(part[::-1] for part in parts), strict=False))), shortest - 1 - first)
    prefix, suffix = parts[0][:first], parts[0][len(parts[0]) - last :]
    return "".join(f"{part}." for part in prefix), "".join(f".{part}" for part in suffix)


def _num_equal(columns: Sequence[Sequence[str]]) -> int:
    return next((i for i, column in enumerate(columns) if len(set(column)) > 1), len(columns))


def _write(figure: plt.Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
