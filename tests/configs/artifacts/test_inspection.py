"""Counting zeros in files whose zeros were put there by hand."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.inspection import inspect
from prunus.configs.artifacts.manifest import Manifest, build_entries
from prunus.configs.errors import ArtifactMissing, ArtifactRefused, Damaged

QUERY = "bert.encoder.layer.0.attention.self.query.weight"
DENSE = "bert.encoder.layer.10.output.dense.weight"


def weight(shape: tuple[int, ...], zeros: int) -> NDArray[np.float32]:
    values = np.arange(1, 1 + np.prod(shape), dtype=np.float32)
    values[:zeros] = 0.0
    return values.reshape(shape)


def model() -> dict[str, NDArray[np.float32]]:
    return {
        DENSE: weight((4, 5), 10),
        QUERY: weight((4, 4), 12),
        "bert.embeddings.word_embeddings.weight": weight((10, 4), 4),
        "bert.encoder.layer.0.attention.self.query.bias": weight((4,), 4),
        "bert.encoder.layer.0.output.LayerNorm.weight": weight((4,), 0),
        "classifier.weight": weight((2, 4), 2),
    }


def record(directory: Path, zeros: dict[str, int]) -> None:
    tensors = model()
    prunable = {name: {"shape": list(tensors[name].shape), "zeros": count} for name, count in zeros.items()}
    (directory / "sparsity.json").write_text(json.dumps({"schema_version": 1, "prunable": prunable}))


def test_totals_name_their_denominator(tmp_path: Path) -> None:
    save_file(model(), tmp_path / "model.safetensors")
    record(tmp_path, {QUERY: 12})
    report = inspect(tmp_path)
    prunable, everything = report.totals
    assert (prunable.of, prunable.tensors, prunable.of_tensors) == ("prunable weights", 1, 6)
    assert (prunable.zeros, prunable.weights, prunable.sparsity) == (12, 16, 0.75)
    assert (everything.of, everything.zeros, everything.weights) == ("all weights", 32, 92)


def test_without_a_record_the_guess_takes_encoder_matrices_and_says_so(tmp_path: Path) -> None:
    save_file(model(), tmp_path / "model.safetensors")
    report = inspect(tmp_path)
    assert [layer.name for layer in report.layers if layer.counted] == [QUERY, DENSE]
    assert (report.totals[0].zeros, report.totals[0].weights) == (22, 36)
    assert any("guess" in note for note in report.notes)


def test_without_a_record_the_table_of_families_says_what_counts(tmp_path: Path) -> None:
    """XLNet's attention is made of parameters of three dimensions, which no guess from names would take."""
    tensors = {
        "transformer.word_embedding.weight": weight((10, 4), 4),
        "transformer.layer.0.rel_attn.q": weight((4, 2, 2), 3),
        "transformer.layer.0.rel_attn.seg_embed": weight((2, 2, 2), 1),
        "transformer.layer.0.ff.layer_1.weight": weight((6, 4), 5),
        "sequence_summary.summary.weight": weight((4, 4), 6),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "xlnet"}')
    report = inspect(tmp_path)
    assert {layer.name: layer.zeros for layer in report.layers if layer.counted} == {
        "transformer.layer.0.rel_attn.q": 3,
        "transformer.layer.0.ff.layer_1.weight": 5,
    }
    assert any("model type" in note for note in report.notes)
    assert not any("guess" in note for note in report.notes)


@pytest.mark.parametrize("config", ['{"model_type": "unheard-of"}', "{}"])
def test_a_model_type_that_the_table_lacks_is_guessed(config: str, tmp_path: Path) -> None:
    save_file(model(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(config)
    report = inspect(tmp_path)
    assert [layer.name for layer in report.layers if layer.counted] == [QUERY, DENSE]
    assert any("guess" in note for note in report.notes)


def test_a_record_that_disagrees_with_the_file_is_refused(tmp_path: Path) -> None:
    save_file(model(), tmp_path / "model.safetensors")
    record(tmp_path, {QUERY: 13})
    with pytest.raises(Damaged, match=r"has 12 zeros, sparsity.json says 13"):
        inspect(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        ("BF16", [0x0000, 0x8000, 0x3F80, 0x0001, 0x8001]),
        ("F16", [0x0000, 0x8000, 0x3C00, 0x0001, 0x8001]),
        ("I16", [0, 0, 1, 2, 0x8000]),
    ],
)
def test_both_zeros_count_and_the_smallest_number_does_not(tmp_path: Path, dtype: str, bits: list[int]) -> None:
    data = np.array(bits, dtype="<u2").tobytes()
    header = json.dumps({"w": {"dtype": dtype, "shape": [5], "data_offsets": [0, 10]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    assert inspect(path).layers[0].zeros == 2


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    tensors = model()
    save_file({QUERY: tensors[QUERY]}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({DENSE: tensors[DENSE]}, tmp_path / "model-00002-of-00002.safetensors")
    placed = {QUERY: "model-00001-of-00002.safetensors", DENSE: "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    assert inspect(tmp_path).totals[0].zeros == 22
    placed["lost"] = "model-00001-of-00002.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    with pytest.raises(Damaged, match="lacks the tensor 'lost'"):
        inspect(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {QUERY: "../x.safetensors"}}))
    with pytest.raises(Damaged, match="leads out of it"):
        inspect(tmp_path)


def write_mask(path: Path, masks: dict[str, NDArray[np.bool_]], **metadata: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = {name: np.packbits(mask.reshape(-1), bitorder="little") for name, mask in masks.items()}
    shapes = json.dumps({name: list(mask.shape) for name, mask in masks.items()})
    digest = hashlib.sha256()
    for name in sorted(masks):
        digest.update(json.dumps([name, list(masks[name].shape)]).encode() + packed[name].tobytes())
    told = {"format": "prunus-mask", "version": "1", "shapes": shapes, "method": "gradual_magnitude", "step": "7"}
    told |= {"pattern": "unstructured", "digest": digest.hexdigest()}
    save_file(packed, path, metadata={**told, **metadata})


def test_a_mask_counts_what_it_removes(tmp_path: Path) -> None:
    keep = np.zeros((3, 5), dtype=bool)
    keep.reshape(-1)[[0, 7, 8, 14]] = True
    write_mask(tmp_path / "mask.safetensors", {QUERY: keep, DENSE: np.ones((2, 2), dtype=bool)})
    report = inspect(tmp_path / "mask.safetensors")
    assert report.kind == "mask"
    assert [(layer.name, layer.shape, layer.zeros) for layer in report.layers] == [
        (QUERY, (3, 5), 11),
        (DENSE, (2, 2), 0),
    ]
    assert (report.totals[0].of, report.totals[0].zeros, report.totals[0].weights) == ("masked weights", 11, 19)
    assert report.notes == ("mask.safetensors: method gradual_magnitude, step 7, pattern unstructured",)


@pytest.mark.parametrize("place", ["masks/step-{}", "step-{}"])
def test_the_newest_mask_of_a_directory_is_taken(tmp_path: Path, place: str) -> None:
    for step, kept in ((9, True), (10, False)):
        folder = tmp_path / place.format(step)
        write_mask(folder / "mask.safetensors", {QUERY: np.full((2, 3), kept)}, step=str(step))
    report = inspect(tmp_path)
    assert report.totals[0].sparsity == 1.0
    assert any("step 10" in note for note in report.notes)


def test_masks_that_do_not_fit_their_shapes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.safetensors"
    write_mask(path, {QUERY: np.ones((3, 5), dtype=bool)}, shapes=json.dumps({QUERY: [3, 6]}))
    with pytest.raises(Damaged, match=r"has 2 bytes, which do not fit its shape \(3, 6\)"):
        inspect(path)
    write_mask(path, {QUERY: np.ones((4, 4), dtype=bool)}, shapes=json.dumps({QUERY: [3, 5]}))
    with pytest.raises(Damaged, match="bits beyond its 15 weights"):
        inspect(path)
    write_mask(path, {QUERY: np.ones((4, 4), dtype=bool)}, shapes=json.dumps({"other": [4, 4]}))
    with pytest.raises(Damaged, match="shapes and tensors differ"):
        inspect(path)


def test_bits_of_a_mask_that_differ_from_their_digest_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "mask.safetensors"
    write_mask(path, {QUERY: np.ones((3, 5), dtype=bool)}, digest="0" * 64)
    with pytest.raises(Damaged, match="do not match its digest"):
        inspect(path)


def test_the_manifest_is_checked(tmp_path: Path) -> None:
    save_file(model(), tmp_path / "model.safetensors")
    manifest = Manifest(job_id="j1", job_name="prune", attempt_id="j1-a1", files=build_entries(tmp_path))
    write_atomic(tmp_path / "manifest.json", manifest.model_dump_json())
    assert "manifest.json: 1 files verified (job prune, j1)" in inspect(tmp_path).notes
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(bytes(data))
    with pytest.raises(Damaged, match="differs from its manifest"):
        inspect(tmp_path)


def test_a_cut_or_lying_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(model(), path)
    whole = path.read_bytes()
    for broken in (b"", whole[:5], whole[:-1], b"\xff" * 8 + whole[8:], whole[:8] + b"[" + whole[9:]):
        path.write_bytes(broken)
        with pytest.raises(Damaged, match="not a whole safetensors file"):
            inspect(path)


def test_a_file_of_another_kind_is_refused_without_numbers_from_it(tmp_path: Path) -> None:
    content = json.dumps({"hidden_size": 8})
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ArtifactRefused, match=r"name a \.safetensors file or a directory"):
        inspect(tmp_path / "config.json")
    (tmp_path / "x.safetensors").write_text(content)
    with pytest.raises(Damaged) as caught:
        inspect(tmp_path / "x.safetensors")
    assert not any(character.isdecimal() for character in str(caught.value).replace(str(tmp_path), ""))


def test_nothing_to_count(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing, match=r"neither model.safetensors nor masks"):
        inspect(tmp_path)
    with pytest.raises(ArtifactMissing, match="does not exist"):
        inspect(tmp_path / "absent")
