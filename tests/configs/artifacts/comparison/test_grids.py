"""Metrics over two keys: which cells stand in which table, by hand."""

from prunus.configs.artifacts.comparison.grids import Grid, grids
from prunus.configs.artifacts.comparison.result import Comparison, Entry


def entry(method: str, source: str, target: str, per: float | None, sparsity: float | None = 0.5) -> Entry:
    metrics = {} if per is None else {"eval/per": per, "eval/loss": 1.0}
    name = f"{method}-{source}-{target}-{per}"
    return Entry(name=name, source=name, group=(method, source, target), sparsity=sparsity, metrics=metrics)


def comparison(*entries: Entry, by: tuple[str, ...] = ("method", "source", "target")) -> Comparison:
    return Comparison(by=by, entries=entries)


FULL = (
    entry("fixed", "es", "es", 0.1),
    entry("fixed", "es", "tr", 0.2),
    entry("fixed", "tr", "es", 0.3),
    entry("fixed", "tr", "tr", 0.4),
)


def test_the_last_two_keys_are_rows_and_columns_and_the_others_a_table_each() -> None:
    adjusted = (
        entry("PARP", "tr", "es", 0.7, 0.7),
        entry("PARP", "es", "es", 0.5, 0.7),
        entry("PARP", "tr", "tr", 0.6, 0.7),
    )
    assert grids(comparison(*FULL, *adjusted), "eval/per") == [
        Grid(("fixed", "0.5"), ("es", "tr"), ("es", "tr"), ((0.1, 0.2), (0.3, 0.4))),
        Grid(("PARP", "0.7"), ("es", "tr"), ("es", "tr"), ((0.5, None), (0.7, 0.6))),
    ]


def test_each_sparsity_has_its_table_though_shares_differ_in_the_fourth_digit() -> None:
    near = [one.model_copy(update={"sparsity": 0.4998 + 1e-4 * i}) for i, one in enumerate(FULL)]
    (found,) = grids(comparison(*near), "eval/per")
    assert found.title == "fixed / sparsity 0.5"
    close = [one.model_copy(update={"sparsity": 0.504}) for one in FULL]
    assert [grid.panel[1] for grid in grids(comparison(*FULL, *close), "eval/per")] == ["0.5", "0.504"]
    two = [one.model_copy(update={"sparsity": 0.9}) for one in FULL]
    assert [grid.panel for grid in grids(comparison(*FULL, *two), "eval/per")] == [("fixed", "0.5"), ("fixed", "0.9")]


def test_several_jobs_of_one_cell_are_their_mean() -> None:
    (found,) = grids(comparison(*FULL, entry("fixed", "es", "tr", 0.6)), "eval/per")
    assert found.values[0] == (0.1, 0.4)


def test_a_line_a_single_key_or_a_table_of_holes_is_no_grid() -> None:
    assert grids(comparison(*FULL[:2]), "eval/per") == []
    one_key = [one.model_copy(update={"group": ("fixed",)}) for one in FULL]
    assert grids(comparison(*one_key, by=("method",)), "eval/per") == []
    diagonal = [entry("dense", name, name, 0.1, 0.0) for name in ("es", "tr")]
    assert grids(comparison(*diagonal), "eval/per") == []  # 2 of 4


def test_jobs_without_the_metric_or_a_known_sparsity_are_left_out() -> None:
    odd = (entry("fixed", "xx", "es", None), entry("fixed", "yy", "es", 0.9, None))
    (found,) = grids(comparison(*FULL, *odd), "eval/per")
    assert found.rows == ("es", "tr")
    assert grids(comparison(*FULL), "eval/cer") == []


def test_a_table_of_thirteen_is_for_pictures() -> None:
    wide = [entry("fixed", str(i), str(j), 0.1) for i in range(13) for j in range(2)]
    assert [grid.is_small for grid in grids(comparison(*wide), "eval/per")] == [False]
    assert [grid.is_small for grid in grids(comparison(*FULL), "eval/per")] == [True]


def test_a_cell_that_is_missing_moves_no_row_and_no_column() -> None:
    names = ("es", "fr", "tr")
    cells = [entry("fixed", a, b, 0.1) for a in names for b in names]
    holed = [entry("PARP", a, b, 0.1) for a in names for b in names if (a, b) != ("es", "es")]
    first, second = grids(comparison(*holed, *cells), "eval/per")
    assert first.rows == first.columns == second.rows == second.columns == names
    assert first.values[0][0] is None
