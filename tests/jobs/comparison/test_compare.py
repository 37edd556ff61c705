"""Comparing by hand: matrices of tiny masks, what is left out and said, groups, names, what lies on disk."""

import json
import re
from pathlib import Path

import pytest
import torch

from prunus.configs import ConfigError
from prunus.configs.artifacts.comparison.result import Comparison
from prunus.jobs.comparison.__main__ import main
from prunus.jobs.comparison.compare import Candidate, compare, read_candidate
from prunus.jobs.comparison.tables import report
from prunus.jobs.errors import PruningError, UserError
from prunus.jobs.sparsity import masks
from prunus.jobs.sparsity.masks import PackedMask
from tests.jobs.comparison.compared_artifacts import bits, candidate, record, write_artifact


def test_the_matrices_by_hand() -> None:
    found = compare([candidate("x", "x"), candidate("y", "y")])
    assert found.masked == ("x", "y")
    # Kept: x has a0 a1 b0, y has a0 a2 b0. Removed: a2 a3 b1 and a1 a3 b1.
    assert found.iou_kept == ((1.0, 0.5), (0.5, 1.0))
    assert found.iou_removed == ((1.0, 0.5), (0.5, 1.0))
    assert found.flipped == ((0.0, 2 / 6), (2 / 6, 0.0))
    # By chance a has 2 * 2 / 4 = 1 in common, b has 1 * 1 / 2: 1.5 of 3 + 3 - 1.5, also where a mask meets itself.
    assert found.random_iou_kept == ((1.5 / 4.5,) * 2,) * 2
    assert found.random_iou_removed == ((1.5 / 4.5,) * 2,) * 2
    x = found.entries[0]
    assert (x.sparsity, x.num_weights) == (0.5, 6)
    assert x.sparsity_by_weight == {"a": 0.5, "b": 0.5}
    assert found.notes == ()


def test_a_mask_of_other_weights_has_no_pair_and_is_named() -> None:
    found = compare([candidate("x", "x"), candidate("z", "z"), candidate("y", "y")])
    assert found.masked == ("x", "z", "y")
    assert found.iou_kept == ((1.0, None, 0.5), (None, 1.0, None), (0.5, None, 1.0))
    (note,) = found.notes
    assert note == "x, y and z are not compared: z lacks 1 of 2 weights, b for one; compare masks of the same model"


def test_if_no_two_masks_fit_the_comparison_fails() -> None:
    with pytest.raises(PruningError, match="no two masks are of the same weights: x and z are not compared: z lacks"):
        compare([candidate("x", "x"), candidate("z", "z"), candidate("dense")])


def test_a_weight_of_another_shape_is_named_with_both() -> None:
    other = Candidate("o", "o", record("o"), PackedMask.of({**bits("x"), "b": torch.ones(1, 2, dtype=torch.bool)}))
    found = compare([candidate("x", "x"), candidate("y", "y"), other])
    # o removes less, so it stands first.
    assert found.notes == (
        "o and x, y are not compared: b is [1, 2] in o and [2] in x; compare masks of the same model",
    )


def test_dense_jobs_take_part_with_their_metrics() -> None:
    found = compare([candidate("x", "x", wer=0.5), candidate("teacher", method="dense", wer=0.25)])
    by_name = {entry.name: entry for entry in found.entries}
    assert (by_name["teacher"].sparsity, by_name["teacher"].metrics) == (0.0, {"eval/wer": 0.25})
    assert by_name["x"].metrics == {"eval/wer": 0.5}  # neither losses of training nor sparsity
    assert found.masked == ("x",)
    assert found.notes == ("only x has a mask: there is no pair",)


def test_groups_stand_in_the_order_of_their_keys_and_sparser_ones_behind() -> None:
    jobs = [
        candidate("p-es", "x", method="parp", labels={"language": "es"}),
        candidate("m-es", "y", method="mpi", labels={"language": "es"}),
        candidate("p-fr", "y", method="parp", labels={"language": "fr"}),
        candidate("d-es", method="parp", labels={"language": "es"}),
    ]
    found = compare(jobs, ["method", "language"])
    assert [(entry.name, entry.group) for entry in found.entries] == [
        ("d-es", ("parp", "es")),
        ("p-es", ("parp", "es")),
        ("p-fr", ("parp", "fr")),
        ("m-es", ("mpi", "es")),
    ]
    assert found.masked == ("p-es", "p-fr", "m-es")
    assert found.iou_kept[0] == (1.0, 0.5, 0.5)
    assert found.iou_kept[1] == (0.5, 1.0, 1.0)


def test_a_group_may_be_any_setting_and_what_lacks_it_says_so() -> None:
    bare = Candidate("bare", "b", None, PackedMask.of(bits("x")))
    found = compare([candidate("x", "x"), bare], ["method.final_sparsity", "task"])
    assert [entry.group for entry in found.entries] == [("0.5", "ctc"), ("none", "none")]
    assert "bare has no job.json: its metrics and labels are not known" in found.notes


def test_a_key_that_nothing_has_is_refused_with_the_labels_there() -> None:
    with pytest.raises(UserError, match="has a label or setting 'lang'; labels there: language; name one of them"):
        compare([candidate("x", "x", labels={"language": "es"}), candidate("y", "y")], ["lang"])


def test_equal_names_are_told_apart_by_campaign_then_by_number() -> None:
    jobs = [candidate("x", "x", campaign="c1"), candidate("x", "y", campaign="c2"), candidate("x"), candidate("x")]
    assert {entry.name for entry in compare(jobs).entries} == {"c1/x", "c2/x", "x", "x #2"}


def test_a_metric_that_is_no_number_is_left_out_and_said() -> None:
    found = compare([candidate("x", "x", wer=float("nan"), cer=0.5), candidate("y", "y")])
    assert found.entries[0].metrics == {"eval/cer": 0.5}
    assert found.notes == ("x: eval/wer is no finite number and left out",)
    json.loads(found.model_dump_json())


def test_one_alone_is_no_comparison() -> None:
    with pytest.raises(UserError, match="1 to compare; name at least two"):
        compare([candidate("x", "x")])


# What lies on disk


def test_artifacts_a_bare_mask_and_a_dense_job_are_read(tmp_path: Path) -> None:
    whole = read_candidate(write_artifact(tmp_path / "j1", "x", "x", wer=0.5))
    assert (whole.name, whole.source) == ("x", str(tmp_path / "j1"))
    assert whole.record is not None and whole.record.metrics["eval/wer"] == 0.5
    assert whole.mask is not None and whole.mask.shapes == {"a": (2, 2), "b": (2,)}
    for place in (tmp_path / "j1/masks/step-5", tmp_path / "j1/masks/step-5" / masks.FILE_NAME):
        bare = read_candidate(place)
        assert (bare.name, bare.record) == (place.name, None)
        assert bare.mask is not None
    assert read_candidate(write_artifact(tmp_path / "j2", "dense"), "called").name == "called"
    assert read_candidate(tmp_path / "j2").mask is None


def test_what_differs_from_its_manifest_is_refused(tmp_path: Path) -> None:
    root = write_artifact(tmp_path / "a", "x", "x")
    (root / "job.json").write_text((root / "job.json").read_text() + " ")
    with pytest.raises(ConfigError, match=r"job\.json differs from its manifest"):
        read_candidate(root)
    root = write_artifact(tmp_path / "b", "x", "x")
    (root / "masks/step-5/mask.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"mask\.safetensors is missing or a link"):
        read_candidate(root)


def test_a_directory_without_anything_to_compare_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has neither a mask \(masks/step-N/mask.safetensors\) nor job.json"):
        read_candidate(tmp_path)
    (tmp_path / "job.json").write_text("[]")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_candidate(tmp_path)
    comparing = record("c").model_copy(update={"spec": {"name": "c", "compare": {"jobs": ["a", "b"]}}})
    (tmp_path / "job.json").write_text(comparing.model_dump_json())
    with pytest.raises(UserError, match="compares and has nothing to compare itself"):
        read_candidate(tmp_path)


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


# Tables


def test_the_page_has_chance_above_the_diagonal() -> None:
    text = report(compare([candidate("x", "x"), candidate("y", "y"), candidate("z", "z")]), "Title")
    assert text.startswith("# Title\n\n## Metrics against sparsity")
    lines = text.split("### IOU of the kept positions\n\n")[1].split("\n")
    assert lines[:5] == [
        "|  | x | y | z |",
        "| --- | --- | --- | --- |",
        "| x | 1.0000 | *0.3333* | *–* |",
        "| y | 0.5000 | 1.0000 | *–* |",
        "| z | – | – | 1.0000 |",
    ]
    assert "| a | 0.5000 | 0.5000 | 0.5000 |\n| b | 0.5000 | 0.5000 | – |" in text
    assert "## Left out\n\n- x, y and z are not compared" in text


def test_the_page_of_many_masks_leaves_the_matrix_to_the_pictures() -> None:
    text = report(compare([candidate(f"x{i}", "x") for i in range(13)]), "Title")
    assert "13 masks: the matrices are in `comparison.json` and in the pictures" in text
    assert "IOU of the kept positions" not in text


def test_the_page_has_a_table_over_two_keys() -> None:
    rates = {("es", "es"): 0.1, ("es", "tr"): 0.2, ("tr", "es"): 0.3, ("tr", "tr"): 0.4}
    jobs = [candidate(f"{a}-{b}", "x", labels={"from": a, "to": b}, per=rate) for (a, b), rate in rates.items()]
    page = report(compare(jobs, ["from", "to"]), "Transfer")
    assert "### eval/per, from x to: sparsity 0.5" in page  # x removes 3 of 6
    assert "| from / to | es | tr |\n| --- | --- | --- |\n| es | 0.1000 | 0.2000 |\n| tr | 0.3000 | 0.4000 |" in page
