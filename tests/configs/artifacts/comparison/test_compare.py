"""Comparing by hand: matrices of tiny masks, what is left out and said, groups, names."""

import json

import numpy as np
import pytest

from prunus.configs.artifacts.comparison.candidates import Candidate
from prunus.configs.artifacts.comparison.compare import compare
from prunus.configs.artifacts.mask_file import PackedMask
from prunus.configs.errors import ArtifactRefused
from tests.configs.artifacts.comparison.compared_artifacts import bits, candidate, record


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
    with pytest.raises(ArtifactRefused, match="no two masks are of the same weights: x and z are not compared: z"):
        compare([candidate("x", "x"), candidate("z", "z"), candidate("dense")])


def test_a_weight_of_another_shape_is_named_with_both() -> None:
    other = Candidate("o", "o", record("o"), PackedMask.of({**bits("x"), "b": np.ones((1, 2), dtype=bool)}))
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
    with pytest.raises(ArtifactRefused, match="has a label or setting 'lang'; labels there: language; name one"):
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
    with pytest.raises(ArtifactRefused, match="1 to compare; name at least two"):
        compare([candidate("x", "x")])
