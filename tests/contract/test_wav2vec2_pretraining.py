"""wav2vec 2.0 pre-trained from nothing on real ranks, dense and while it is pruned; then fine-tuned."""

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, Wav2Vec2ForPreTraining

from prunus.configs import JobSpec, Launch
from prunus.jobs.by_hand import launch_by_hand
from prunus.jobs.examples.speech_model import small_config, write
from tests.contract.gang_cases import FEW, cell
from tests.contract.gang_runs import GangRun, Gangs

NUM_STEPS = 8
RATE = 16_000
NUM_CLIPS = 12
TOLERANCE = 2e-6
"""Absolute, of weights of size 1 after 8 steps of 1e-3; 8.8e-7 is what was seen."""
ROUNDING = 1e-9
"""Of a gradient that is zero but for rounding; 3e-12 is what was seen, 1e-5 and more of the weights that learn."""
PRUNABLE = {
    f"wav2vec2.encoder.layers.{layer}.{part}.weight"
    for layer in (0, 1)
    for part in (
        *(f"attention.{name}_proj" for name in ("q", "k", "v", "out")),
        "feed_forward.intermediate_dense",
        "feed_forward.output_dense",
    )
}
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of three tones each, of 0.4 to 1 s, and a manifest that says which."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    lines = ["path,text"]
    for number in range(NUM_CLIPS):
        notes = rng.integers(0, 5, 3)
        seconds = 0.4 + 0.6 * number / NUM_CLIPS
        times = np.arange(round(seconds * RATE / 3)) / RATE
        wave = np.concatenate([0.4 * np.sin(2 * math.pi * 220 * 2 ** (note / 3) * times) for note in notes])
        soundfile.write(root / f"{number:02}.wav", wave + 0.01 * rng.standard_normal(len(wave)), RATE)
        lines.append(f"{number:02}.wav," + "".join("abcde"[note] for note in notes))
    (root.parent / "manifest.csv").write_text("\n".join(lines).replace("\n", f"\n{root.name}/") + "\n")
    return root


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration and feature extractor: no weights."""
    folder = tmp_path_factory.mktemp("nothing")
    write(folder, small_config(hidden=32, layers=2, heads=2, channels=(16,), codes=8, dropout=0.1))
    return folder


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory, nothing: Path) -> Path:
    """A model whose codes are so far apart that no Gumbel noise changes them: noise is drawn by each rank."""
    folder = tmp_path_factory.mktemp("decided")
    write(folder, small_config(hidden=32, layers=2, heads=2, channels=(16,), codes=8, dropout=0.0))
    torch.manual_seed(0)
    model = Wav2Vec2ForPreTraining(Wav2Vec2ForPreTraining.config_class.from_pretrained(folder))
    with torch.no_grad():
        model.quantizer.weight_proj.weight *= 1e5
    model.save_pretrained(folder)
    return folder


def spec(corpus: Path, source: Path, **changed: Any) -> JobSpec:
    """Eight steps over all clips."""
    files = {"files": [str(corpus)]}
    options = changed.pop("task", {})
    fixed = {
        "name": "pretrain",
        "task": {
            "name": "wav2vec2_pretraining",
            "data": {"train": files, "eval": files},
            "num_negatives": 8,
            "time_length": 4,
            **options,
        },
        "model": {"from": str(source), "init": "random"},
        "train": {"num_steps": NUM_STEPS, "batch_size": NUM_CLIPS, "lr": {"peak": 1e-3}, "log_every": 1},
        "engine": {"strategy": "zero2"},
    }
    return JobSpec.model_validate({**fixed, **changed})


def train(gangs: Gangs, job: JobSpec) -> GangRun:
    run = gangs.launch(launch_by_hand(job, gangs.new_directory()))
    assert run.succeeded, run.log[-4000:]
    return run


@pytest.fixture(scope="module")
def dense(gangs: Gangs, corpus: Path, nothing: Path) -> GangRun:
    return train(gangs, spec(corpus, nothing))


def test_it_learns_from_nothing_and_leaves_a_model_that_transformers_loads(dense: GangRun) -> None:
    assert sorted(dense.losses) == list(range(1, NUM_STEPS + 1))
    assert all(0.0 < loss < 5.0 for loss in dense.losses.values())
    folder = dense.directory.artifacts / "model"
    model, report = Wav2Vec2ForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.config.mask_time_prob == 0.65
    assert "wav2vec2.masked_spec_embed" in dense.weights
    assert AutoFeatureExtractor.from_pretrained(folder).sampling_rate == RATE
    for name, weight in model.named_parameters():
        assert torch.equal(weight, dense.weights[name]), name


def test_every_weight_learns_the_feature_encoder_too(dense: GangRun) -> None:
    moments = dense.state()["exp_avg"]
    assert moments.keys() == dense.weights.keys()
    still = [name for name, moment in moments.items() if not moment.any()]
    assert still == []


@pytest.mark.parametrize("strategy", [cell(s, always=s == "zero2") for s in FEW[1:]])
def test_pruning_at_the_pretraining_stage_removes_linear_weights_of_the_encoder_alone(
    gangs: Gangs, corpus: Path, nothing: Path, strategy: str
) -> None:
    method = {"name": "gradual_magnitude", "final_sparsity": 0.5, "update_every": 2, "scope": "global"}
    job = spec(corpus, nothing, method=method, engine={"strategy": strategy}, resources={"num_ranks": 2})
    run = train(gangs, job)
    assert set(run.masks) == PRUNABLE
    removed = sum(int((~mask).sum()) for mask in run.masks.values())
    assert removed == sum(mask.numel() for mask in run.masks.values()) // 2
    for name, mask in run.masks.items():
        assert not run.weights[name][~mask].any()
        assert run.weights[name][mask].all()


def decided_job(corpus: Path, decided: Path, strategy: str, num_ranks: int, micro_batch_size: int) -> JobSpec:
    """Without the diversity term, which is of a micro-batch on a rank."""
    rows = {"batch_size": NUM_CLIPS, "micro_batch_size": micro_batch_size}
    return spec(
        corpus,
        decided,
        task={"diversity_weight": 0.0},
        model={"from": str(decided)},
        train={"num_steps": NUM_STEPS, "lr": {"peak": 1e-3}, "log_every": 1, **rows},
        engine={"strategy": strategy},
        resources={"num_ranks": num_ranks},
    )


@pytest.fixture(scope="module")
def one(gangs: Gangs, corpus: Path, decided: Path) -> GangRun:
    """A plain rank and whole batches."""
    run = train(gangs, decided_job(corpus, decided, "ddp", 1, NUM_CLIPS))
    assert all(loss > 0.5 for loss in run.losses.values())  # there is something to tell apart
    return run


@pytest.mark.parametrize(
    ("strategy", "num_ranks"),
    [cell(s, n, always=s == "zero2" and n == 2) for s, n in (("ddp", 2), ("zero1", 2), *product(FEW[1:], (1, 2)))],
)
def test_any_gang_equals_one_plain_rank(
    gangs: Gangs, corpus: Path, decided: Path, one: GangRun, strategy: str, num_ranks: int
) -> None:
    run = train(gangs, decided_job(corpus, decided, strategy, num_ranks, 3))
    for step, loss in one.losses.items():
        assert math.isclose(run.losses[step], loss, rel_tol=1e-5), f"step {step}"
    # Softmax over keys drops what all keys share: a key's bias has no gradient, and Adam makes steps of its rounding.
    without = {name for name in one.weights if name.endswith("k_proj.bias")}
    assert len(without) == 2
    for name in without:
        assert run.state()["exp_avg"][name].abs().max() < ROUNDING, name
    for name in one.weights.keys() - without:
        torch.testing.assert_close(
            run.weights[name], one.weights[name], rtol=0, atol=TOLERANCE, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("strategy", [cell(s, always=s == "zero2") for s in FEW])
def test_bf16_and_recomputed_activations(gangs: Gangs, corpus: Path, nothing: Path, strategy: str) -> None:
    engine = {"strategy": strategy, "precision": "bf16", "activation_checkpointing": True}
    run = train(gangs, spec(corpus, nothing, engine=engine))
    assert all(0.0 < loss < 5.0 for loss in run.losses.values())
    assert not [name for name, moment in run.state()["exp_avg"].items() if not moment.any()]


def again(launch: Launch) -> Launch:
    """A second attempt of it."""
    return launch.model_copy(update={"attempt": 2, "attempt_id": f"{launch.job_name}-a2", "token": "2"})


def test_a_resumed_job_equals_an_uninterrupted_one_to_the_bit(gangs: Gangs, corpus: Path, nothing: Path) -> None:
    """Masks, negatives, dropout and Gumbel noise come again as they were."""
    rows = {"batch_size": 4, "micro_batch_size": 1, "log_every": 1, "checkpoint_every": 2}
    job = spec(
        corpus,
        nothing,
        train={"num_steps": NUM_STEPS, "lr": {"peak": 1e-3}, **rows},
        engine={"strategy": "zero1"},
        resources={"num_ranks": 2},
    )
    whole = train(gangs, job)
    launch = launch_by_hand(job, gangs.new_directory())
    killed = gangs.launch(launch, kill_after_step=4, kill_ranks=[0, 1])
    assert not killed.succeeded
    resumed = gangs.launch(again(launch))
    assert resumed.succeeded, resumed.log[-4000:]
    assert "resumed from step-" in resumed.log
    assert all(torch.equal(resumed.weights[name], weight) for name, weight in whole.weights.items())


def test_what_was_pretrained_is_fine_tuned_by_ctc(gangs: Gangs, corpus: Path, dense: GangRun) -> None:
    manifest = {"files": [str(corpus.parent / "manifest.csv")]}
    job = JobSpec.model_validate(
        {
            "name": "tune",
            "task": {"name": "ctc", "data": {"train": manifest, "eval": manifest}, "spec_augment": {"channel_prob": 0}},
            "model": {"from": str(dense.directory.artifacts)},
            "train": {"num_steps": 2, "batch_size": 4, "lr": {"peak": 1e-3}, "log_every": 1},
        }
    )
    run = train(gangs, job)
    start, end = (load_file(r.directory.artifacts / "model" / "model.safetensors") for r in (dense, run))
    frozen = "wav2vec2.feature_extractor.conv_layers.0.conv.weight"
    assert torch.equal(start[frozen], end[frozen])  # began from it, and was not trained
    assert not any(name.startswith("quantizer") for name in end)
