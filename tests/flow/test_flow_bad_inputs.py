"""What cannot work fails with the class user_error and a message that names the value and the way out."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from flow_service import UpService
from tiny_inputs import TinyInputs

from configs import Campaign
from service.errors import Refused

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
EXPECTED = {
    "missing-file": ["nowhere.txt"],
    "empty": ["empty.txt"],
    "column": ["nope", "label", "text"],
    "tokenizer": ["another tokenizer", "stranger"],
    "pattern": ["no.such.weight", "matches no weight", "bert.encoder.layer.N.attention.self.query.weight"],
    "corrupt": ["corrupt", "damaged"],
    "tampered": ["tampered", "differs from its manifest"],
    "labels": ["classes"],
}


def bad_jobs(tiny: TinyInputs, root: Path) -> list[dict[str, Any]]:
    """One job for each mistake that only the job itself can find."""
    (root / "empty.txt").write_text("\n\n")
    (root / "nowhere.txt").write_text("it is there at submit, and gone when the job looks\n")
    corrupt, tampered = root / "corrupt", root / "tampered"
    shutil.copytree(tiny.model, corrupt)
    weights = (corrupt / "model.safetensors").read_bytes()
    (corrupt / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    _artifact(tiny, tampered)
    text = {"files": [str(tiny.text)]}
    english = {"name": "masked_lm", "data": {"train": text, "sequence_length": 16}}
    rows = {"files": [str(tiny.labelled)]}
    labelled = {"name": "classification", "data": {"train": rows, "eval": rows, "sequence_length": 16}}
    train = {"num_steps": 2, "batch_size": 4, "lr": {"peak": 1e-3}}
    pruned = {"name": "gradual_magnitude", "final_sparsity": 0.5}
    good = {"task": english, "model": {"from": str(tiny.model)}, "train": train}

    def lines_from(path: str) -> dict[str, Any]:
        return {**english, "data": {"train": {"files": [path]}, "sequence_length": 16}}

    return [
        {"name": "missing-file", **good, "task": lines_from(str(root / "nowhere.txt"))},
        {"name": "empty", **good, "task": lines_from(str(root / "empty.txt"))},
        {"name": "column", **good, "task": {**labelled, "data": {**labelled["data"], "label_column": "nope"}}},  # type: ignore[dict-item]
        {"name": "tokenizer", **good, "distillation": {"teacher": str(tiny.stranger)}},
        {"name": "pattern", **good, "method": {**pruned, "prunable": {"include": ["no.such.weight"]}}},
        {"name": "corrupt", **good, "model": {"from": str(corrupt)}},
        {"name": "tampered", **good, "model": {"from": str(tampered)}},
        {
            "name": "labels",
            **good,
            "task": {**labelled, "labels": ["short", "long"]},
            "distillation": {"teacher": str(tiny.classifier)},
        },
    ]


def _artifact(tiny: TinyInputs, root: Path) -> None:
    """A finished artifact, one bit of which was changed after its manifest was written."""
    from configs.artifacts import MANIFEST, Manifest, build_entries

    shutil.copytree(tiny.model, root / "model")
    manifest = Manifest(job_id="j", job_name="j", attempt_id="j-a1", files=build_entries(root))
    (root / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
    weights = bytearray((root / "model" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (root / "model" / "model.safetensors").write_bytes(weights)


@pytest.fixture(scope="module")
def failed(service: UpService, tiny: TinyInputs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All bad jobs, over. The server looks at local files when they are submitted, so one goes missing later."""
    root = tmp_path_factory.mktemp("bad")
    campaign = Campaign.model_validate({"name": "bad", "jobs": bad_jobs(tiny, root)})
    with service.client as client:
        view = client.submit(campaign)
    (root / "nowhere.txt").unlink()
    assert service.cli("wait", view.id, timeout_s=1700).returncode == 1
    return {job["name"]: job for job in service.answer("list", "--campaign", view.id)}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_mistake_is_a_user_error_with_a_clear_message(service: UpService, failed: dict[str, Any], name: str) -> None:
    job = failed[name]
    assert job["state"] == "FAILED"
    assert "user_error" in job["why"] or job["attempts"][-1]["reason"] == "user_error", service.explain(job)
    for words in EXPECTED[name]:
        assert words in job["why"], job["why"]
    assert "Traceback" not in job["why"]
    assert "defect" not in job["why"]
    assert len(job["attempts"]) <= 1, "a user error is never tried again"


@pytest.mark.parametrize(
    "resources", [{"num_ranks": 1, "gpus_per_rank": 1}, {"num_ranks": 2, "cpus_per_rank": 2}, {"num_ranks": 1000}]
)
def test_more_than_the_cluster_can_ever_have_is_refused_at_submit(
    service: UpService, tiny: TinyInputs, tmp_path: Path, resources: dict[str, Any]
) -> None:
    job = bad_jobs(tiny, tmp_path)[4] | {"method": {"name": "dense"}, "resources": resources}
    job["train"] = {**job["train"], "batch_size": 1000}
    with service.client as client, pytest.raises(Refused) as refused:
        client.submit(Campaign.model_validate({"jobs": [job]}))
    assert "GPU" in str(refused.value) or "CPU" in str(refused.value)


def test_the_command_line_looks_for_files_before_it_submits(
    service: UpService, tiny: TinyInputs, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"name: r\ntask: {{name: masked_lm, data: {{train: {{files: [{tmp_path}/nowhere.txt]}}}}}}\n"
        f"model: {{from: {tiny.model}}}\ntrain: {{num_steps: 1, lr: {{peak: 1.0e-3}}}}\n",
        encoding="utf-8",
    )
    refused = service.cli("submit", str(recipe))
    assert refused.returncode == 2
    assert "nowhere.txt" in refused.stderr
