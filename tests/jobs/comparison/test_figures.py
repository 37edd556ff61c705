"""Pictures of comparisons: what is drawn, with what labels; that they read well was looked at."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

from prunus.configs.artifacts.comparison.compare import compare
from prunus.jobs.comparison import figures as comparison_figures
from prunus.jobs.comparison.figures import draw
from tests.configs.artifacts.comparison.compared_artifacts import candidate

METRICS = ("eval_cer_against_sparsity.png", "eval_wer_against_sparsity.png")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Every figure by its file's name, kept open."""
    figures: dict[str, Any] = {}

    def keep(figure: Any, path: Path) -> Path:
        figures[path.name] = figure
        return path

    monkeypatch.setattr(comparison_figures, "_write", keep)
    yield figures
    plt.close("all")


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_every_picture_is_a_png(tmp_path: Path) -> None:
    jobs = [candidate("x", "x", wer=0.5, cer=0.2), candidate("y", "y", wer=0.4)]
    paths = draw(compare(jobs), tmp_path / "figures")
    heat_maps = ["iou_kept.png", "iou_removed.png", "sparsity_per_weight.png"]
    assert sorted(path.name for path in paths) == [*METRICS, *heat_maps]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_few_masks_have_numbers_in_the_cells_and_other_weights_none(tmp_path: Path, drawn: dict[str, Any]) -> None:
    draw(compare([candidate("x", "x"), candidate("y", "y"), candidate("z", "z")]), tmp_path)
    assert texts(drawn["iou_kept.png"]) == ["1.00", "0.33", "0.50", "1.00", "1.00"]  # row by row; x, y with z: none
    assert texts(drawn["sparsity_per_weight.png"]) == ["0.50"] * 5


def test_many_masks_are_all_named_and_have_colours_alone(tmp_path: Path, drawn: dict[str, Any]) -> None:
    draw(compare([candidate(f"a-job-with-a-name-that-is-too-long-{i}", "x") for i in range(13)]), tmp_path)
    axes = drawn["iou_removed.png"].axes[0]
    assert len(axes.texts) == 0
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(set(labels)) == 13 and max(map(len, labels)) <= 32
    assert labels[12] == "a-job-with-a-na…t-is-too-long-12"


def test_groups_differ_in_more_than_colour(tmp_path: Path, drawn: dict[str, Any]) -> None:
    jobs = [
        candidate("p-es", "x", method="parp", labels={"l": "es"}, wer=0.5),
        candidate("m-es", "y", method="mpi", labels={"l": "es"}, wer=0.6),
        candidate("p-fr", "y", method="parp", labels={"l": "fr"}, wer=0.7),
        candidate("dense", method="dense", labels={"l": "es"}, wer=0.2),
    ]
    draw(compare(jobs, ["method", "l"]), tmp_path)
    legend = drawn["eval_wer_against_sparsity.png"].axes[0].get_legend()
    names = [text.get_text() for text in legend.texts]
    assert names == ["parp / es", "parp / fr", "mpi / es", "dense / es (sparsity 0)"]
    looks = [(line.get_linestyle(), line.get_marker()) for line in legend.legend_handles]
    assert looks == [("-", "o"), ("-", "s"), ("--", "o"), ("-.", "o")]


def test_points_of_one_sparsity_are_joined_by_their_mean(tmp_path: Path, drawn: dict[str, Any]) -> None:
    jobs = [candidate("a", "x", wer=0.4), candidate("b", "y", wer=0.6), candidate("c", wer=0.1)]
    draw(compare(jobs), tmp_path)
    line, points = drawn["eval_wer_against_sparsity.png"].axes[0].lines[:2]
    assert [tuple(point) for point in line.get_xydata()] == [(0.0, 0.1), (0.5, 0.5)]
    assert sorted(points.get_ydata()) == [0.1, 0.4, 0.6]


@pytest.mark.parametrize(
    ("names", "ends"),
    [
        (["e.layer.0.q.weight", "e.layer.1.q.weight"], ("e.layer.", ".q.weight")),
        (["a.weight", "b.weight"], ("", ".weight")),
        (["a.b", "a"], ("", "")),
        (["a.a", "a.a.a"], ("a.", "")),
        (["a.x"], ("", "")),
    ],
)
def test_names_are_shortened_by_what_they_have_in_common(names: list[str], ends: tuple[str, str]) -> None:
    assert comparison_figures._common(names) == ends


def test_a_cell_never_says_that_agreement_is_whole_when_it_is_not() -> None:
    assert [comparison_figures._cell(value) for value in (0.34, 0.9976, 0.99999, 1.0)] == [
        "0.34", "0.997", "0.999", "1.00",
    ]  # fmt: skip


def test_two_keys_are_drawn_as_a_matrix_per_value_of_the_others_in_one_scale(
    tmp_path: Path, drawn: dict[str, Any]
) -> None:
    jobs = [
        candidate(f"{m}-{a}-{b}", "x", method=m, labels={"source": a, "target": b}, wer=wer)
        for m, a, b, wer in [
            ("fixed", "es", "es", 0.25), ("fixed", "es", "tr", 0.5), ("fixed", "tr", "es", 0.75),
            ("parp", "es", "es", 0.125), ("parp", "es", "tr", 1.0), ("parp", "tr", "es", 0.5),
            ("parp", "tr", "tr", 0.5),
        ]
    ]  # fmt: skip
    paths = draw(compare(jobs, ["method", "source", "target"]), tmp_path)
    assert tmp_path / "eval_wer_matrix.png" in paths
    first, second, _ = drawn["eval_wer_matrix.png"].axes  # and the scale
    assert [text.get_text() for text in first.texts] == ["0.25", "0.50", "0.75"]  # nothing for tr -> tr
    assert [text.get_text() for text in second.texts] == ["0.12", "1.00", "0.50", "0.50"]
    assert first.images[0].get_clim() == second.images[0].get_clim() == (0.125, 1.0)
    assert [label.get_text() for label in first.get_yticklabels()] == ["es", "tr"]
    assert (first.get_ylabel(), first.get_xlabel()) == ("source", "target")


def test_one_key_has_no_matrix(tmp_path: Path, drawn: dict[str, Any]) -> None:
    draw(compare([candidate("a", "x", wer=0.4), candidate("b", "y", wer=0.6)]), tmp_path)
    assert "eval_wer_matrix.png" not in drawn
