"""A campaign of languages over the real command line: one job per language, one for both, masks across languages."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest

from prunus.configs.artifacts.manifest import verify
from tests.flow.flow_service import UpService
from tests.tones import TinySpeech

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

RECIPE = """
campaign: languages
max_parallel: 2
defaults:
  task:
    name: ctc
    spec_augment: {{time_prob: 0.2, time_length: 2, channel_prob: 0.0}}
  model: {{from: {model}, head: new}}
  train:
    num_steps: 12
    batch_seconds: 8
    weight_decay: 0.0
    log_every: 2
    lr: {{peak: 1.0e-2, schedule: tri_stage, warmup: 0.1}}
  engine: {{strategy: ddp}}
jobs:
  - name: parp
    matrix: {{language: [es, tr]}}
    labels: {{language: "${{matrix.language}}"}}
    task:
      data:
        train: {{files: ["{root}/${{matrix.language}}/train.tsv"], language: "${{matrix.language}}"}}
        eval: {{files: ["{root}/${{matrix.language}}/test.tsv"], language: "${{matrix.language}}"}}
    method: {{name: parp, final_sparsity: 0.5, update_every: 4}}
  - name: both
    task:
      data:
        train:
          - {{files: ["{root}/es/train.tsv"], language: es}}
          - {{files: ["{root}/tr/train.tsv"], language: tr}}
        eval:
          - {{files: ["{root}/es/test.tsv"], language: es}}
          - {{files: ["{root}/tr/test.tsv"], language: tr}}
    method: {{name: parp, final_sparsity: 0.5, initial_sparsity: 0.2, update_every: 4}}
    engine: {{strategy: zero2}}
    resources: {{num_ranks: 2}}
  - name: transfer
    task:
      data:
        train: {{files: ["{root}/tr/train.tsv"], language: tr}}
        eval: {{files: ["{root}/tr/test.tsv"], language: tr}}
    method: {{name: locked, mask: "job:parp-es", prunable: {{biases: true}}}}
"""


@pytest.fixture(scope="module")
def campaign(service: UpService, speech: TinySpeech, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The jobs of the campaign by name, all over."""
    recipe = tmp_path_factory.mktemp("recipe") / "languages.yaml"
    recipe.write_text(RECIPE.format(model=speech.model, root=speech.root), encoding="utf-8")
    ended = service.cli("submit", str(recipe), "--wait", "--json", timeout_s=1700)
    jobs = {job["name"]: job for job in json.loads(ended.stdout)["jobs"]}
    for job in jobs.values():
        assert job["state"] == "SUCCEEDED", service.explain(job)
    return jobs


def test_each_language_has_a_job_of_its_own_and_one_serves_both(campaign: dict[str, Any]) -> None:
    assert set(campaign) == {"parp-es", "parp-tr", "both", "transfer"}
    for name in ("parp-es", "parp-tr", "both"):
        assert campaign[name]["metrics"]["sparsity/prunable"] == pytest.approx(0.5, abs=1e-3)
        assert campaign[name]["metrics"]["eval/cer"] >= 0.0
    assert {"eval/cer/es", "eval/cer/tr"} <= set(campaign["both"]["metrics"])
    assert campaign["transfer"]["parents"] == [campaign["parp-es"]["id"]]


def test_a_model_that_says_nothing_is_told_of(service: UpService, campaign: dict[str, Any]) -> None:
    """Twelve steps leave CTC on its plateau; whoever asks why learns it."""
    silent = [job for job in campaign.values() if job["metrics"].get("eval/empty", 0.0) >= 0.95]
    assert silent, "all of them speak after 12 steps: give this test fewer"
    assert "it has collapsed to blanks" in service.cli("why", silent[0]["id"]).stdout


def test_all_runs_hang_under_the_campaigns(service: UpService, campaign: dict[str, Any]) -> None:
    client = mlflow.MlflowClient(service.state["mlflow_url"])
    parents = {client.get_run(job["run_id"]).data.tags["mlflow.parentRunId"] for job in campaign.values()}
    assert len(parents) == 1


def test_what_is_fetched_is_read_by_transformers_alone(
    service: UpService, campaign: dict[str, Any], speech: TinySpeech, tmp_path: Path
) -> None:
    assert service.cli("fetch", "job:both", str(tmp_path / "both")).returncode == 0
    verify(tmp_path / "both")
    clip = speech.tsv("tr", "test").parent / "clips" / "test-0.wav"
    code = (
        "import sys\n"
        "import soundfile, torch\n"
        "from transformers import AutoModelForCTC, AutoProcessor\n"
        "processor = AutoProcessor.from_pretrained(sys.argv[1])\n"
        "model = AutoModelForCTC.from_pretrained(sys.argv[1]).eval()\n"
        "samples, rate = soundfile.read(sys.argv[2])\n"
        "with torch.no_grad():\n"
        "    said = model(**processor(samples, sampling_rate=rate, return_tensors='pt')).logits.argmax(-1)\n"
        "print(len(processor.batch_decode(said)))"
    )
    words = [sys.executable, "-I", "-c", code, str(tmp_path / "both"), str(clip)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.stdout.strip() == "1", done.stderr[-2000:]


def test_the_comparison_has_every_mask_and_its_heat_maps(
    service: UpService, campaign: dict[str, Any], tmp_path: Path
) -> None:
    """On the machine of who asks; ``test_flow_campaign`` has the job that compares."""
    assert service.cli("compare", "languages", "--out", str(tmp_path / "out")).returncode == 0
    found = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert set(found["masked"]) == {"parp-es", "parp-tr", "both", "transfer"}
    place = {name: i for i, name in enumerate(found["masked"])}
    assert found["iou_kept"][place["parp-es"]][place["transfer"]] == 1.0
    assert 0.0 < found["iou_kept"][place["parp-es"]][place["parp-tr"]] < 1.0
    assert len(list((tmp_path / "out" / "figures").glob("*.png"))) >= 2
