"""Directories in the compact form and back: the same files, a true manifest, and clear refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.compact.convert import Form, convert
from prunus.configs.artifacts.inspection import inspect
from prunus.configs.artifacts.manifest import MANIFEST, Manifest, build_entries, sha256_file, verify
from prunus.configs.errors import ArtifactMissing, ArtifactRefused, Damaged
from prunus.service.cli.main import app


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    """A small sparse model as ``prunus fetch`` leaves one."""
    root = tmp_path / "fetched"
    (root / "masks" / "step-9").mkdir(parents=True)
    draw = np.random.default_rng(0)
    matrix = draw.normal(size=(64, 64)).astype(np.float32)
    matrix[draw.random((64, 64)) < 0.9] = 0
    name = "bert.encoder.layer.0.output.dense"
    save_file({f"{name}.weight": matrix, f"{name}.bias": matrix[0]}, root / "model.safetensors", {"format": "pt"})
    (root / "config.json").write_text("{}")
    (root / "masks" / "step-9" / "mask.safetensors").write_bytes(b"bits")
    manifest = Manifest(job_id="j", job_name="sparse", attempt_id="j-a1", files=build_entries(root))
    told = {**manifest.model_dump(), "source": "job:sparse", "source_manifest_sha256": "0" * 64}  # as fetch does
    write_atomic(root / MANIFEST, json.dumps(told))
    return root


def files(root: Path) -> dict[str, str]:
    found = (path for path in root.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in found}


def test_there_and_back_is_the_same_directory(fetched: Path, tmp_path: Path) -> None:
    there = convert(fetched, tmp_path / "compact", "compact")
    assert there.files == ("model.sparse.safetensors",)
    assert there.bytes_after < there.bytes_before / 2
    assert f"-> {there.bytes_after:,} bytes" in there.summary
    expected = {"model.sparse.safetensors", "config.json", "masks/step-9/mask.safetensors"}
    assert set(files(tmp_path / "compact")) == expected
    assert set(verify(tmp_path / "compact").files) == set(files(tmp_path / "compact"))
    back = convert(tmp_path / "compact", tmp_path / "plain", "plain")
    assert (back.bytes_before, back.bytes_after) == (there.bytes_after, there.bytes_before)
    assert files(tmp_path / "plain") == files(fetched)
    before, after = (json.loads((root / MANIFEST).read_text()) for root in (fetched, tmp_path / "plain"))
    assert after == before


def test_inspect_counts_the_same_in_both_forms(fetched: Path, tmp_path: Path) -> None:
    convert(fetched, tmp_path / "compact", "compact")
    plain, compact = inspect(fetched), inspect(tmp_path / "compact")
    assert plain.totals == compact.totals
    assert plain.layers == compact.layers
    assert plain.totals[0].zeros > 0


def test_every_shard_is_converted(fetched: Path, tmp_path: Path) -> None:
    (fetched / MANIFEST).unlink()
    (fetched / "model.safetensors").rename(fetched / "model-00001-of-00002.safetensors")
    save_file({"other.weight": np.zeros((64, 64), np.float32)}, fetched / "model-00002-of-00002.safetensors")
    places = {"bert.encoder.layer.0.output.dense.weight": "model-00001-of-00002.safetensors"}
    (fetched / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    names = convert(fetched, tmp_path / "compact", "compact").files
    assert names == ("model.sparse-00001-of-00002.safetensors", "model.sparse-00002-of-00002.safetensors")
    assert [layer.zeros for layer in inspect(tmp_path / "compact").layers][-1] == 64 * 64
    convert(tmp_path / "compact", tmp_path / "plain", "plain")
    assert files(tmp_path / "plain") == files(fetched)


def test_files_of_the_same_name_further_below_are_copied(fetched: Path, tmp_path: Path) -> None:
    (fetched / MANIFEST).unlink()
    (fetched / "checkpoint-5").mkdir()
    (fetched / "checkpoint-5" / "model.safetensors").write_bytes(b"another")
    (fetched / "checkpoint-5" / MANIFEST).write_text("another")
    convert(fetched, tmp_path / "compact", "compact")
    assert (tmp_path / "compact" / "checkpoint-5" / "model.safetensors").read_bytes() == b"another"
    assert (tmp_path / "compact" / "checkpoint-5" / MANIFEST).read_text() == "another"


def test_a_model_below_its_artifact_is_found(fetched: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "artifacts"
    artifact.mkdir()
    (fetched / MANIFEST).unlink()
    fetched.rename(artifact / "model")
    assert convert(artifact, tmp_path / "compact", "compact").files == ("model/model.sparse.safetensors",)
    assert inspect(tmp_path / "compact").totals == inspect(artifact).totals


def test_weights_that_the_manifest_does_not_know_are_not_vouched_for(fetched: Path, tmp_path: Path) -> None:
    document = json.loads((fetched / MANIFEST).read_text())
    del document["files"]["model.safetensors"]
    (fetched / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(Damaged, match=r"does not list model\.safetensors"):
        convert(fetched, tmp_path / "compact", "compact")


def test_a_source_with_a_name_like_ours_survives(fetched: Path, tmp_path: Path) -> None:
    source = tmp_path / ".out.converting"
    fetched.rename(source)
    before = files(source)
    convert(source, tmp_path / "out", "compact")
    assert files(source) == before


def test_a_link_to_nowhere_is_said(fetched: Path, tmp_path: Path) -> None:
    (fetched / MANIFEST).unlink()
    (fetched / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ArtifactRefused, match="cannot be converted"):
        convert(fetched, tmp_path / "compact", "compact")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fetched"]


def test_without_a_manifest_there_is_none_after(fetched: Path, tmp_path: Path) -> None:
    (fetched / MANIFEST).unlink()
    assert "nothing was verified" in convert(fetched, tmp_path / "compact", "compact").summary
    assert not (tmp_path / "compact" / MANIFEST).exists()


@pytest.mark.parametrize(("form", "wanted"), [("plain", "model.sparse.safetensors"), ("compact", "model.safetensors")])
def test_the_form_that_is_there_already_is_named(fetched: Path, tmp_path: Path, form: Form, wanted: str) -> None:
    source = fetched
    if form == "compact":
        source = tmp_path / "compact"
        convert(fetched, source, "compact")
    with pytest.raises(ArtifactMissing, match=rf"holds no {wanted}: it is {form} already"):
        convert(source, tmp_path / "again", form)
    assert not (tmp_path / "again").exists()


def test_what_is_there_is_not_overwritten(fetched: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ArtifactRefused, match="holds files"):
        convert(fetched, tmp_path / "full", "compact")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    with pytest.raises(ArtifactRefused, match="lies inside"):
        convert(fetched, fetched / "inside", "compact")


def test_a_source_that_was_tampered_with_leaves_nothing(fetched: Path, tmp_path: Path) -> None:
    content = bytearray((fetched / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (fetched / "model.safetensors").write_bytes(content)
    with pytest.raises(Damaged, match="differs from its manifest"):
        convert(fetched, tmp_path / "compact", "compact")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fetched"]


def test_damage_in_the_middle_leaves_nothing(fetched: Path, tmp_path: Path) -> None:
    convert(fetched, tmp_path / "compact", "compact")
    (tmp_path / "compact" / MANIFEST).unlink()
    path = tmp_path / "compact" / "model.sparse.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged):
        convert(tmp_path / "compact", tmp_path / "plain", "plain")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["compact", "fetched"]


def test_the_command_says_what_it_wrote_and_what_it_refuses(fetched: Path, tmp_path: Path) -> None:
    command = ["convert", str(fetched), str(tmp_path / "compact"), "--to", "compact", "--json"]
    told = json.loads(CliRunner().invoke(app, command).stdout)
    assert (told["form"], told["verified"]) == ("compact", True)
    assert told["bytes_after"] == (tmp_path / "compact" / "model.sparse.safetensors").stat().st_size
    again = CliRunner().invoke(app, command)
    assert again.exit_code != 0
    assert "holds files" in again.stderr
    assert "Traceback" not in again.output
