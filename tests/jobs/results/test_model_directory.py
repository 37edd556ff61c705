"""The file that users fetch: its zeros are the mask's, and transformers alone loads it to the same logits."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from prunus.configs import JobSpec, Launch
from prunus.configs.artifacts.compact.pack import pack
from prunus.configs.artifacts.compact.unpack import unpack_to_plain
from prunus.configs.artifacts.manifest import sha256_file, verify
from prunus.configs.artifacts.mask_file import Facts
from prunus.configs.values.prunable import Prunable
from prunus.jobs.errors import JobError
from prunus.jobs.models.prunable import prunable_parameters
from prunus.jobs.ranks import Ranks
from prunus.jobs.results import finish as results
from prunus.jobs.results.model_card import model_card
from prunus.jobs.results.model_directory import check_file, write_model
from prunus.jobs.results.records import write_manifest, write_mask
from prunus.jobs.sparsity.arithmetic import Masks
from tests.jobs import tiny


@dataclass
class StudentOnly:
    """What the export asks of an engine."""

    student: PreTrainedModel
    ranks: Ranks

    @property
    def objective(self) -> "StudentOnly":
        return self

    def full_weights(self) -> Iterator[tuple[str, torch.Tensor | None]]:
        for name, weight in self.student.named_parameters():
            yield name, weight.detach().clone() if self.ranks.is_main else None


def masked_student() -> tuple[PreTrainedModel, Masks]:
    """A model whose masters hold the zeros already, as after training: 3 of 4 prunable weights."""
    student = tiny.bert()
    kept = {
        name: (torch.arange(w.numel()) % 4 == 0).view(w.shape)
        for name, w in prunable_parameters(student, Prunable()).items()
    }
    with torch.no_grad():
        for name, mask in kept.items():
            student.get_parameter(name).mul_(mask)
    return student.eval(), kept


def written(tmp_path: Path, alone: Ranks) -> tuple[PreTrainedModel, Masks, dict[str, float]]:
    student, kept = masked_student()
    shares = write_model(StudentOnly(student, alone), tiny.tokenizer(), kept, tmp_path / "model", "# card\n")
    return student, kept, shares


def test_zeros_in_the_file_are_the_masks_and_nothing_else_changes(tmp_path: Path, alone: Ranks) -> None:
    student, kept, shares = written(tmp_path, alone)
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    for name, mask in kept.items():
        assert torch.equal(tensors[name] != 0, mask), name
    own = student.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in tensors.items())
    assert shares["sparsity/prunable"] == 0.75
    zeros = sum(int((t == 0).sum()) for t in tensors.values())
    assert shares["sparsity/model"] == pytest.approx(zeros / sum(t.numel() for t in tensors.values()))


def test_no_zero_carries_a_sign(tmp_path: Path, alone: Ranks) -> None:
    _, kept, _ = written(tmp_path, alone)
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    assert not any(torch.signbit(tensors[name][~mask]).any() for name, mask in kept.items())


def test_the_tied_weight_is_stored_once(tmp_path: Path, alone: Ranks) -> None:
    written(tmp_path, alone)
    names = set(load_file(tmp_path / "model" / "model.safetensors"))
    assert len(names & {"bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"}) == 1


def test_transformers_alone_loads_it_to_the_same_logits(tmp_path: Path, alone: Ranks) -> None:
    student, _, _ = written(tmp_path, alone)
    batch = tiny.batch()
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    torch.save({"inputs": inputs, "logits": student(**inputs).logits.detach()}, tmp_path / "expected.pt")
    reader = """
import importlib.util
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer
assert not any(importlib.util.find_spec(room) for room in ("configs", "jobs"))
expected = torch.load("expected.pt")
model, report = AutoModelForMaskedLM.from_pretrained("model", output_loading_info=True)
assert not report["missing_keys"] and not report["unexpected_keys"], report
assert torch.equal(model.eval()(**expected["inputs"]).logits, expected["logits"])
assert AutoTokenizer.from_pretrained("model")("a b")["input_ids"] == [5, 6]
print("same")
"""
    site = next(path for path in sys.path if path.endswith("site-packages"))
    command = [sys.executable, "-S", "-c", f"import sys; sys.path.append({site!r})\n{reader}"]
    environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert answer.stdout.strip() == "same", answer.stderr[-2000:]


def test_a_file_that_differs_from_the_mask_is_refused(tmp_path: Path, alone: Ranks) -> None:
    _, kept, _ = written(tmp_path, alone)
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    name = "bert.encoder.layer.1.output.dense.weight"
    tensors[name][0, 1] = 1e-20
    save_file(tensors, path)
    with pytest.raises(JobError, match=f"1 removed weights of {name} are not zero in model.safetensors: not published"):
        check_file(tmp_path / "model", kept)


def test_a_missing_tensor_is_refused(tmp_path: Path, alone: Ranks) -> None:
    _, kept, _ = written(tmp_path, alone)
    kept["bert.encoder.layer.7.output.dense.weight"] = torch.ones(1, dtype=torch.bool)
    with pytest.raises(JobError, match=r"has no tensor bert\.encoder\.layer\.7\.output\.dense\.weight: not"):
        check_file(tmp_path / "model", kept)


def test_the_sparsity_of_every_tensor_is_told_to_people_and_machines(tmp_path: Path, alone: Ranks) -> None:
    written(tmp_path, alone)
    facts = json.loads((tmp_path / "model" / "sparsity.json").read_text())
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    assert facts["prunable"][name] == {"shape": [12, 8], "zeros": 72, "removed": 72}
    assert len(facts["prunable"]) == 12
    card = (tmp_path / "model" / "README.md").read_text()
    assert card.startswith("# card")
    assert "Prunable weights (12 tensors): 0.7500." in card
    assert f"| {name} | [12, 8] | 72 | 0.7500 |" in card


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    student, kept = masked_student()
    engine = StudentOnly(student, Ranks(1, 2, torch.device("cpu")))
    assert write_model(engine, tiny.tokenizer(), kept, tmp_path / "model", "") == {}
    assert not (tmp_path / "model").exists()


def test_a_dense_model_has_no_prunable_tensors(tmp_path: Path, alone: Ranks) -> None:
    shares = write_model(StudentOnly(tiny.bert(), alone), tiny.tokenizer(), {}, tmp_path / "model", "")
    assert shares["sparsity/prunable"] == 0.0
    assert "Prunable weights (0 tensors)" in (tmp_path / "model" / "README.md").read_text()


def launch() -> Launch:
    spec = JobSpec.model_validate(
        {
            "name": "student",
            "task": {"name": "masked_lm", "data": {"sequence_length": 8, "train": {"files": ["x.txt"]}}},
            "model": {"from": "job:teacher"},
            "train": {"num_steps": 5, "lr": {"peak": 1e-3}},
        }
    )
    return Launch(
        prunus_version="0", job_id="j1", job_name="student", attempt=2, attempt_id="j1-a2", token="1", job_dir="/j",
        cache_dir="/c", spec=spec,
    )  # fmt: skip


def test_the_manifest_proves_every_file_and_names_the_parents(tmp_path: Path, alone: Ranks) -> None:
    _, kept, _ = written(tmp_path, alone)
    write_mask(kept, tmp_path, Facts("locked", 5))
    lineage = {"model": "job:teacher sha256:abc"}
    digest = write_manifest(tmp_path, launch(), lineage)
    assert digest == sha256_file(tmp_path / "manifest.json")
    manifest = verify(tmp_path)
    assert manifest.parents == lineage
    assert (manifest.job_id, manifest.attempt_id) == ("j1", "j1-a2")
    assert {"model/model.safetensors", "model/config.json", "masks/step-5/mask.safetensors"} <= manifest.files.keys()


def test_the_compact_form_is_in_the_manifest_and_is_the_published_file(tmp_path: Path, alone: Ranks) -> None:
    student = tiny.bert(hidden_size=40, intermediate_size=56)
    kept = {
        name: (torch.arange(w.numel()) % 10 == 0).view(w.shape)
        for name, w in prunable_parameters(student, Prunable()).items()
    }
    write_model(StudentOnly(student, alone), tiny.tokenizer(), kept, tmp_path / "model", "# card\n")
    size = pack(tmp_path / "model", tmp_path / "compact")
    write_manifest(tmp_path, launch(), {})
    listed = verify(tmp_path).files
    assert listed["compact/model.sparse.safetensors.zst"].size == size < listed["model/model.safetensors"].size
    plain = tmp_path / "plain"
    unpack_to_plain(tmp_path / "compact" / "model.sparse.safetensors.zst", plain, listed["model/model.safetensors"])
    assert sha256_file(plain) == listed["model/model.safetensors"].sha256


def test_the_card_says_what_was_done_and_does_not_promise_speed() -> None:
    card = model_card(launch(), {"model": "job:teacher sha256:abc"}, {"eval/loss": 1.23456}, "job:teacher")
    assert "`masked_lm` x `dense`, started from `job:teacher`" in card
    assert "- model: `job:teacher sha256:abc`" in card
    assert "| eval/loss | 1.2346 |" in card
    assert "no faster on ordinary CPUs and GPUs" in card


def test_a_compact_form_that_cannot_be_written_costs_no_trained_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    save_file({"a.weight": torch.zeros(64, 64)}, tmp_path / "model" / "model.safetensors")
    (tmp_path / "compact").write_text("a file where the folder belongs")
    results._pack(tmp_path)
    assert (tmp_path / "model" / "model.safetensors").is_file()
