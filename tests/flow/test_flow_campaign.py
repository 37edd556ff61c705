"""The spine over the real command line: a campaign is submitted, trained, tracked and fetched; the next job uses it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from safetensors.torch import load_file

from prunus.configs.artifacts.manifest import verify
from tests.flow.flow_service import UpService, rank_process, wait_for_step
from tests.tiny_inputs import TinyInputs, is_prunable

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

RECIPE = """
campaign: spine
defaults:
  engine: {{strategy: zero2}}
  train: {{num_steps: 12, batch_size: 8, log_every: 2, lr: {{peak: 1.0e-3}}}}
jobs:
  - name: teacher
    labels: {{purpose: flow}}
    task: &english
      name: masked_lm
      data: {{train: {{files: [{text}]}}, eval: {{files: [{text}]}}, sequence_length: 16, max_eval_sequences: 9}}
    model: {{from: {model}}}
  - name: sparse
    task: *english
    model: {{from: "job:teacher"}}
    method: {{name: gradual_magnitude, final_sparsity: 0.9, update_every: 2}}
    distillation: {{teacher: "job:teacher"}}
    train: {{checkpoint_every: 4, lr: {{schedule: linear_rewind}}}}
    resources: {{num_ranks: 2}}
    output: {{register_as: tiny-sparse}}
  - name: down
    task:
      name: classification
      data: {{train: {{files: [{rows}]}}, eval: {{files: [{rows}]}}, sequence_length: 32}}
    model: {{from: "job:sparse"}}
    method: {{name: locked}}
    distillation: {{teacher: {classifier}}}
  - name: together
    compare: {{jobs: [teacher, sparse, down]}}
"""

LOAD = """
import json, sys, torch
for name in ("prunus", "jobs", "configs", "cluster", "service"):
    sys.modules[name] = None
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
rows = [line.rsplit("\\t", 1) for line in open(sys.argv[2], encoding="utf-8").read().splitlines()[1:]]
correct, loss = 0, 0.0
with torch.no_grad():
    for text, label in rows:
        logits = model(**tokenizer(text, truncation=True, max_length=32, return_tensors="pt")).logits[0]
        correct += model.config.id2label[int(logits.argmax())] == label
        loss -= float(logits.log_softmax(0)[model.config.label2id[label]])
print(json.dumps({"eval/accuracy": correct / len(rows), "eval/loss": loss / len(rows)}))
"""


@pytest.fixture(scope="module")
def campaign(service: UpService, tiny: TinyInputs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The jobs of the campaign by name, all over."""
    recipe = tmp_path_factory.mktemp("recipe") / "spine.yaml"
    places = {"text": tiny.text, "model": tiny.model, "rows": tiny.labelled, "classifier": tiny.classifier}
    recipe.write_text(RECIPE.format(**places), encoding="utf-8")
    ended = service.cli("submit", str(recipe), "--wait", "--json", timeout_s=1700)
    jobs = {job["name"]: job for job in json.loads(ended.stdout)["jobs"]}
    for job in jobs.values():
        assert job["state"] == "SUCCEEDED", service.explain(job)
    assert ended.returncode == 0
    return jobs


@pytest.fixture(scope="module")
def fetched(service: UpService, campaign: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Fetched directories by job."""
    root = tmp_path_factory.mktemp("fetched")
    for name in ("sparse", "down"):
        assert service.cli("fetch", f"job:{name}", str(root / name)).returncode == 0
    return {name: root / name for name in ("sparse", "down")}


def zeros(path: Path) -> dict[str, torch.Tensor]:
    weights = load_file(
        path / "model.safetensors" if (path / "model.safetensors").exists() else path / "model" / "model.safetensors"
    )
    return {name: weight == 0 for name, weight in weights.items() if is_prunable(name)}


def test_every_job_tells_what_it_did(service: UpService, campaign: dict[str, Any]) -> None:
    assert campaign["sparse"]["num_ranks"] == 2
    assert campaign["sparse"]["parents"] == [campaign["teacher"]["id"]]
    assert campaign["down"]["parents"] == [campaign["sparse"]["id"]]
    assert campaign["sparse"]["metrics"]["sparsity/prunable"] == pytest.approx(0.9, abs=1 / 576)
    assert all(job["published"] for job in campaign.values())
    for name in campaign.keys() - {"together"}:
        assert service.cli("wait", name).returncode == 0
        assert "SUCCEEDED" in service.cli("show", name).stdout
        assert "step 12/12" in service.cli("logs", name, "--rank", "0").stdout
    assert "resources.num_ranks" not in service.cli("why", "sparse").stdout
    listed = {job["name"] for job in service.answer("list", "--campaign", "spine")}
    assert listed == {"teacher", "sparse", "down", "together"}


def test_the_fetched_model_has_exactly_the_asked_zeros(service: UpService, fetched: dict[str, Path]) -> None:
    found = zeros(fetched["sparse"])
    assert len(found) == 12
    for name, removed in found.items():
        assert abs(int(removed.sum()) - 0.9 * removed.numel()) < 1, name
    report = service.answer("inspect", str(fetched["sparse"]))
    assert "0.9" in json.dumps(report) or "0.89" in json.dumps(report)


def test_the_compact_form_travels_and_turns_back_to_the_same_bytes(
    service: UpService, fetched: dict[str, Path], tmp_path: Path
) -> None:
    told = service.answer("fetch", "job:sparse", str(tmp_path / "compact"), "--compact")
    assert told["downloaded_bytes"] < told["total_bytes"]
    assert (tmp_path / "compact" / "model.sparse.safetensors").is_file()
    assert not (tmp_path / "compact" / "model.safetensors").exists()
    found = service.answer("inspect", str(tmp_path / "compact"))
    assert found["totals"] == service.answer("inspect", str(fetched["sparse"]))["totals"]
    service.answer("convert", str(tmp_path / "compact"), str(tmp_path / "plain"), "--to", "plain")
    published = fetched["sparse"] / "model.safetensors"
    assert (tmp_path / "plain" / "model.safetensors").read_bytes() == published.read_bytes()


def test_the_downstream_model_is_zero_at_the_same_places(fetched: dict[str, Path]) -> None:
    parent, child = zeros(fetched["sparse"]), zeros(fetched["down"])
    assert parent.keys() == child.keys()
    assert all(torch.equal(parent[name], child[name]) for name in parent)


def test_the_fetched_model_needs_nothing_of_ours(
    campaign: dict[str, Any], fetched: dict[str, Path], tiny: TinyInputs, tmp_path: Path
) -> None:
    """Evaluated by a process that cannot import prunus, it gives the figures of the training process."""
    root = fetched["down"] / "model" if (fetched["down"] / "model").is_dir() else fetched["down"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-c", LOAD, str(root), str(tiny.labelled)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    figures, trained = json.loads(ended.stdout.splitlines()[-1]), campaign["down"]["metrics"]
    assert figures["eval/accuracy"] == pytest.approx(trained["eval/accuracy"], abs=1e-9)
    assert figures["eval/loss"] == pytest.approx(trained["eval/loss"], rel=1e-5)


def test_mlflow_has_the_whole_run(service: UpService, campaign: dict[str, Any]) -> None:
    client = mlflow.MlflowClient(tracking_uri=service.state["mlflow_url"])
    job = campaign["sparse"]
    run = client.get_run(job["run_id"])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "sparse"
    assert run.data.params["method.final_sparsity"] == "0.9"
    assert run.data.params["resources.num_ranks"] == "2"
    assert run.data.params["lineage.teacher"].startswith("job:teacher sha256:")
    assert run.data.params["prunable_weights"] == str(8 * 24 * 24 + 4 * 24 * 40)
    for curve in ("loss/task", "loss/teacher", "loss/total", "lr", "sparsity/prunable", "throughput/tokens_per_s"):
        assert [point.step for point in client.get_metric_history(run.info.run_id, curve)] == [2, 4, 6, 8, 10, 12], (
            curve
        )
    assert run.data.metrics["sparsity/prunable"] == pytest.approx(0.9, abs=1 / 576)
    assert {"mask/flipped", "mask/iou_prev", "eval/loss"} <= run.data.metrics.keys()
    assert sum(name.startswith("sparsity/layer/") for name in run.data.metrics) == 12
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {
        "model",
        "masks",
        "figures",
        "manifest.json",
    }
    figures = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "figures")}
    assert figures == {"sparsity_per_layer.png", "sparsity_schedule.png", "mask_iou.png"}


def test_a_job_compares_what_the_others_left_and_the_command_line_does_the_same(
    service: UpService, campaign: dict[str, Any], tmp_path: Path
) -> None:
    job = campaign["together"]
    assert (job["task"], job["metrics"]["compare/masks"]) == ("comparison", 2)
    service.answer("fetch", "job:together", str(tmp_path / "out"))
    verify(tmp_path / "out")
    asked = json.loads((tmp_path / "out" / "comparison.json").read_text())
    found = service.answer("compare", "spine")
    for answer in (asked, found):
        assert [entry["name"] for entry in answer["entries"]] == ["teacher", "sparse", "down"]
        assert answer["iou_kept"] == answer["iou_removed"] == [[1.0, 1.0], [1.0, 1.0]]  # locked keeps the pattern
        # Masks of 0.9 agree by chance on 0.1 / 1.9 of what they keep, up to a rounded weight per tensor.
        assert answer["random_iou_kept"][0][1] == pytest.approx(0.1 / 1.9, abs=2e-3)
        assert answer["entries"][2]["metrics"]["eval/accuracy"] == campaign["down"]["metrics"]["eval/accuracy"]
    client = mlflow.MlflowClient(tracking_uri=service.state["mlflow_url"])
    figures = {Path(file.path).name for file in client.list_artifacts(job["run_id"], "figures")}
    assert {"iou_kept.png", "iou_removed.png", "eval_loss_against_sparsity.png"} <= figures


def test_a_campaign_is_one_parent_run(service: UpService, campaign: dict[str, Any]) -> None:
    client = mlflow.MlflowClient(tracking_uri=service.state["mlflow_url"])
    runs = {name: client.get_run(job["run_id"]) for name, job in campaign.items()}
    (parent,) = {run.data.tags["mlflow.parentRunId"] for run in runs.values()}
    assert client.get_run(parent).info.run_name == "spine"
    assert runs["teacher"].data.tags["label.purpose"] == "flow"


def test_the_registry_entry_is_fetchable(
    service: UpService, campaign: dict[str, Any], fetched: dict[str, Path], tmp_path: Path
) -> None:
    client = mlflow.MlflowClient(tracking_uri=service.state["mlflow_url"])
    assert client.get_model_version_by_alias("tiny-sparse", "current").run_id == campaign["sparse"]["run_id"]
    assert service.cli("fetch", "models:/tiny-sparse@current", str(tmp_path / "out")).returncode == 0
    assert all(torch.equal(zeros(tmp_path / "out")[name], zero) for name, zero in zeros(fetched["sparse"]).items())
    missing = service.cli("fetch", "models:/tiny-sparse@nope", str(tmp_path / "none"))
    assert missing.returncode == 3
    assert "nope" in missing.stderr


def test_a_damaged_file_on_storage_is_never_delivered(
    service: UpService, campaign: dict[str, Any], tmp_path: Path
) -> None:
    stored = service.job_directory(campaign["teacher"]["id"]).artifacts / "model" / "model.safetensors"
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        refused = service.cli("fetch", "job:teacher", str(tmp_path / "out"))
        assert refused.returncode == 6
        assert "model.safetensors" in refused.stderr
        assert not (tmp_path / "out" / "model.safetensors").exists()
        assert not (tmp_path / "out" / "model" / "model.safetensors").exists()
    finally:
        stored.write_bytes(whole)
    assert service.cli("fetch", "job:teacher", str(tmp_path / "out")).returncode == 0


def test_a_killed_rank_fails_the_job_with_a_reason_and_leaves_no_process(
    service: UpService, tiny: TinyInputs, tmp_path: Path
) -> None:
    recipe = tmp_path / "victim.yaml"
    recipe.write_text(
        f"name: victim\ntask: {{name: masked_lm, data: {{train: {{files: [{tiny.text}]}}, sequence_length: 16}}}}\n"
        f"model: {{from: {tiny.model}}}\nmethod: {{name: gradual_magnitude, final_sparsity: 0.9}}\n"
        "train: {num_steps: 100000, batch_size: 8, log_every: 1, checkpoint_every: 50, lr: {peak: 1.0e-3}}\n"
        "resources: {num_ranks: 2}\n",
        encoding="utf-8",
    )
    job = service.answer("submit", str(recipe))["jobs"][0]
    directory = service.job_directory(job["id"])
    wait_for_step(directory, 1, 60)
    victim = rank_process(directory, 1, 1)
    assert victim is not None
    os.kill(victim.pid, signal.SIGKILL)
    waited = service.cli("wait", "victim", timeout_s=1200)
    assert waited.returncode == 1
    (ended,) = [job for job in service.answer("list", "--state", "FAILED") if job["name"] == "victim"]
    assert ended["attempts"][-1]["reason"] == "worker_lost", ended
    assert "rank" in ended["why"]
    assert rank_process(directory, 1, 0) is None, "the other rank still runs"
    assert (directory.checkpoints / "step-50" / "manifest.json").is_file()
    told = service.cli("why", "victim")
    assert told.returncode == 0
    assert "rank 1 died without a word" in told.stdout
    shutil.rmtree(directory.checkpoints)
