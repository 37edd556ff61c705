"""``python -m prunus.jobs.comparison``: what it leaves, and how it says a mistake."""

import re
from pathlib import Path

import pytest

from prunus.configs.artifacts.comparison.result import Comparison
from prunus.jobs.comparison.__main__ import main
from tests.configs.artifacts.comparison.compared_artifacts import write_artifact


def test_by_hand_it_leaves_json_tables_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [write_artifact(tmp_path / name, name, name, wer=0.5) for name in ("x", "y")]
    out = tmp_path / "out"
    assert main([f"first={places[0]}", str(places[1]), "--by", "task", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}/comparison.json\n"
    found = Comparison.model_validate_json((out / "comparison.json").read_text())
    assert (found.masked, found.by, found.iou_kept[1][0]) == (("first", "y"), ("task",), 0.5)
    text = (out / "README.md").read_text()
    assert "| first | ctc | 0.5000 | 0.5000 |" in text
    linked = re.findall(r"!\[.*\]\((.*)\)", text)
    assert {path.relative_to(out).as_posix() for path in (out / "figures").iterdir()} == set(linked)
    names = {"iou_kept", "iou_removed", "eval_wer_against_sparsity", "sparsity_per_weight"}
    assert {Path(path).stem for path in linked} == names
    assert main([str(place) for place in places] + ["--no-figures", "--out", str(tmp_path / "plain")]) == 0
    assert {path.name for path in (tmp_path / "plain").iterdir()} == {"comparison.json", "README.md"}


def test_by_hand_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = write_artifact(tmp_path / "x", "x", "x")
    assert main([str(place), str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"prunus: {tmp_path}/none has neither a mask") and told.count("\n") == 1
    assert not (tmp_path / "out").exists()
