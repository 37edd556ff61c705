"""The file of a mask: bits after NumPy's ``packbits``, what it says of itself, and its damage."""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from prunus.configs.artifacts.mask_file import FILE_NAME, Facts, PackedMask, load_packed, newest, pack, save, unpack
from prunus.configs.errors import ArtifactMissing, ArtifactRefused, Damaged

LOCKED = Facts("locked", 0)


def example() -> dict[str, NDArray[np.bool_]]:
    draw = np.random.default_rng(3)
    return {name: draw.random(shape) > 0.5 for name, shape in {"b": (3, 7), "a": (5,)}.items()}


def write(place: Path, facts: Facts = LOCKED) -> Path:
    """Write the example; returns the file's path."""
    return save(PackedMask.of(example()), place, facts)


def facts_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="np") as opened:
        return dict(opened.metadata())


def loaded(path: Path) -> dict[str, NDArray[np.bool_]]:
    found = load_packed(path)
    return {name: unpack(bits, found.shapes[name]) for name, bits in found.bits.items()}


def test_a_file_comes_back_equal_and_any_reader_of_safetensors_understands_it(tmp_path: Path) -> None:
    wanted = example()
    path = write(tmp_path / "masks" / "step-3", Facts("locked", 3))
    for place in (path, path.parent):
        found = loaded(place)
        assert list(found) == ["b", "a"]
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    raw = load_file(path)
    assert raw["b"].tolist() == np.packbits(wanted["b"].ravel(), bitorder="little").tolist()
    facts = facts_of(path)
    assert {key: facts[key] for key in ("format", "version", "method", "step")} == {
        "format": "prunus-mask",
        "version": "1",
        "method": "locked",
        "step": "3",
    }
    assert json.loads(facts["shapes"]) == {"b": [3, 7], "a": [5]}
    assert [p.name for p in path.parent.iterdir()] == ["mask.safetensors"]
    assert load_packed(path).count_kept() == {name: int(keep.sum()) for name, keep in wanted.items()}


def test_the_content_is_that_of_earlier_releases(tmp_path: Path) -> None:
    """Digests from the code of release 0.1.0. safetensors writes the metadata in any order, so the header is sorted."""
    mask = {
        "b.weight": (np.arange(35) % 3 == 0).reshape(5, 7),
        "a.weight": (np.arange(16) % 5 != 0).reshape(2, 8),
        "a.bias": np.array([True, False, True]),
    }
    facts = Facts("gradual_magnitude", 7, "2:4", "ab" * 32, {"model": "job:x sha256:1", "mask": "y"})
    content = save(PackedMask.of(mask), tmp_path, facts).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True).encode()
    assert (len(content), length) == (600, 584)
    assert (
        hashlib.sha256(header + content[8 + length :]).hexdigest()
        == "b0485d07a14c0569cc5da2a6e62382b9f95616307415a60b9c648697e23c2322"
    )
    assert PackedMask.of(mask).digest() == "aec65af37bd027bdd32a9f69ac7c64d9e8ab51e126d6ba89faf28022a79210d3"


def test_one_bit_per_weight_is_stored(tmp_path: Path) -> None:
    path = save(PackedMask.of({"w": np.ones((800, 1000), dtype=bool)}), tmp_path, Facts("dense", 0))
    assert 100_000 <= path.stat().st_size < 101_000


def digest(mask: dict[str, NDArray[np.bool_]]) -> str:
    return PackedMask.of(mask).digest()


def test_the_digest_depends_on_bits_names_and_shapes_but_not_on_order() -> None:
    one = example()
    assert digest(one) == digest(dict(reversed(one.items())))
    flipped = {**one, "a": one["a"] ^ np.array([False, False, True, False, False])}
    reshaped = {**one, "b": one["b"].reshape(7, 3)}
    renamed = {"b": one["b"], "c": one["a"]}
    assert len({digest(m) for m in (one, flipped, reshaped, renamed)}) == 4


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged, match="is damaged: its bits do not match its digest; fetch it again"):
        load_packed(path)


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_file_cut_short_cannot_be_read_as_a_mask(tmp_path: Path, length: int) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(Damaged, match=r"mask\.safetensors cannot be read as a mask"):
        load_packed(path)


def test_a_mask_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing, match="does not exist; give a job or directory that has a mask"):
        load_packed(tmp_path)


def test_other_safetensors_are_no_masks(tmp_path: Path) -> None:
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(ArtifactRefused, match=r"model\.safetensors is not a prunus mask of version 1"):
        load_packed(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "shapes",
    [
        '{"b": [3, 7], "a": [6000]}', '{"b": [3, 7], "z": [5]}', "[", None, "[]", "7", '{"b": 21, "a": 5}',
        '{"b": [3, "7"], "a": [5]}', '{"b": [-3, -7], "a": [5]}', '{"b": [3, 7.5], "a": [5]}', '{"b": null, "a": [5]}',
    ],
)  # fmt: skip
def test_a_mask_whose_facts_do_not_fit_its_bits_is_refused(tmp_path: Path, shapes: str | None) -> None:
    path = write(tmp_path)
    facts = facts_of(path)
    facts = {key: value for key, value in facts.items() if key != "shapes"} | ({"shapes": shapes} if shapes else {})
    save_file({name: pack(mask) for name, mask in example().items()}, path, facts)
    with pytest.raises(Damaged, match="cannot be read as a mask"):
        load_packed(path)


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        (np.zeros(2, np.uint8), "2 bytes"),  # 5 elements fit 1
        (np.zeros(0, np.uint8), "0 bytes"),
        (np.zeros((1, 1), np.uint8), "1 bytes"),
    ],
)
def test_bytes_that_are_too_many_or_too_few_for_the_shape_are_refused(
    tmp_path: Path, stored: NDArray[np.uint8], found: str
) -> None:
    path = write(tmp_path)
    facts = facts_of(path)
    save_file({"b": pack(example()["b"]), "a": stored}, path, facts)
    message = rf"cannot be read as a mask: a has {found}, which do not fit its shape \(5,\)"
    with pytest.raises(Damaged, match=message):
        load_packed(path)


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.bool_])
def test_a_mask_of_numbers_that_are_no_bytes_is_refused(tmp_path: Path, dtype: type) -> None:
    """Even with a digest that fits."""
    path = save(PackedMask.of({"w": np.ones(8, dtype=bool)}), tmp_path, LOCKED)
    facts = facts_of(path)
    stored: np.ndarray = np.ones(1, dtype)
    facts["digest"] = hashlib.sha256(b'["w", [8]]' + stored.tobytes()).hexdigest()
    save_file({"w": stored}, path, facts)
    with pytest.raises(Damaged, match="cannot be read as a mask"):
        load_packed(path)


def test_a_mask_says_its_pattern_its_base_and_its_parents(tmp_path: Path) -> None:
    parents = {"teacher": "job:t sha256:12", "model": "org/\u00fc sha256:ab"}
    path = write(tmp_path, Facts("gradual_magnitude", 90, "2:4", "f" * 64, parents))
    facts = facts_of(path)
    assert (facts["pattern"], facts["base_sha256"], json.loads(facts["parents"])) == ("2:4", "f" * 64, parents)
    wanted = example()
    assert all(np.array_equal(keep, wanted[name]) for name, keep in loaded(path).items())


def test_a_mask_of_unknown_origin_says_so_with_empty_facts(tmp_path: Path) -> None:
    path = write(tmp_path)
    facts = facts_of(path)
    assert (facts["pattern"], facts["base_sha256"], facts["parents"]) == ("unstructured", "", "{}")


def test_the_origin_is_no_part_of_the_masks_digest(tmp_path: Path) -> None:
    origins = [Facts("locked", 0), Facts("gradual_magnitude", 9, "4x4", "ab", {"model": "x"})]
    paths = [write(tmp_path / str(number), origin) for number, origin in enumerate(origins)]
    digests = {facts_of(path)["digest"] for path in paths}
    assert digests == {digest(example())}


def test_bits_beyond_the_last_weight_are_refused(tmp_path: Path) -> None:
    bits = {"a": np.array([0b1110_0000], np.uint8)}
    shapes = {"a": (5,)}
    facts = {"format": "prunus-mask", "version": "1", "shapes": json.dumps(shapes), "digest": "any"}
    save_file(bits, tmp_path / FILE_NAME, facts)
    with pytest.raises(Damaged, match="a has bits beyond its 5 weights"):
        load_packed(tmp_path)


def test_the_mask_of_an_artifact_is_the_one_with_the_most_steps(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    for step in (9, 10, 2):
        write(tmp_path / "masks" / f"step-{step}", Facts("locked", step))
    (tmp_path / "masks" / "step-99").mkdir()  # left by a crash, without a mask
    assert newest(tmp_path) == tmp_path / "masks" / "step-10"


def test_a_packed_mask_is_what_lies_in_the_file(tmp_path: Path) -> None:
    write(tmp_path, Facts("locked", 3))
    packed = load_packed(tmp_path)
    assert (packed.shapes, packed.facts["method"]) == ({"b": (3, 7), "a": (5,)}, "locked")
    assert all(np.array_equal(bits, PackedMask.of(example()).bits[name]) for name, bits in packed.bits.items())
