"""Task ctc on real ranks: PARP's contract over engines, resumes, base models, and what a job leaves."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract.gang_cases import FEW, cell
from tests.contract.gang_runs import Gangs
from tests.contract.speech_cases import NUM_STEPS, SpeechCase
from tests.contract.test_resume import TRAIN, assert_same_end, kill_and_resume
from tests.tones import TinySpeech, write_model

pytestmark = pytest.mark.cluster
PARP = {"name": "parp", "final_sparsity": 0.6, "initial_sparsity": 0.3, "update_every": 3}
SPEC_AUGMENT = {"time_prob": 0.3, "time_length": 2, "channel_prob": 0.2, "channel_length": 4}
LOSS_TOLERANCE = 1e-6
STATE_TOLERANCE = 1e-6
NUM_PRUNABLE = 2 * (4 * 16 * 16 + 2 * 16 * 20 + 4 * 16 + 20 + 16)
"""2 layers: q, k, v, out of 16 x 16, two of 16 x 20, and their biases."""


def case(speech: TinySpeech, method: dict[str, Any] = PARP, **changed: Any) -> SpeechCase:
    return SpeechCase(method, **{"root": str(speech.root), "task": (("spec_augment", SPEC_AUGMENT),), **changed})


def metrics(run: Any) -> dict[str, float]:
    """The last evaluation, from the spool."""
    found: dict[str, float] = {}
    for line in (run.directory.tracking / "spool.jsonl").read_text(encoding="utf-8").splitlines():
        point = json.loads(line)
        if point["op"] == "metrics" and any(name.startswith("eval/") for name in point["values"]):
            found = point["values"]
    return found


@pytest.mark.parametrize(
    ("strategy", "num_ranks", "model"),
    [
        cell(s, n, m, always=(s, n) == ("zero2", 2) or (m == "model" and s in FEW and n == 2))
        for s, n in (("ddp", 2), ("zero1", 2), ("zero2", 2), ("zero3", 2), ("zero2", 1), ("ddp", 3))
        for m in ("model", "group-norm")
    ],
)
def test_any_gang_equals_one_plain_rank(
    gangs: Gangs, speech: TinySpeech, strategy: str, num_ranks: int, model: str
) -> None:
    """With SpecAugment and lengths that differ: masks, losses, weights and error rates are those of one rank."""
    run = gangs.run(case(speech, strategy=strategy, num_ranks=num_ranks, model=model))
    one = gangs.run(case(speech, strategy="ddp", model=model))
    assert sorted(one.losses) == list(range(1, NUM_STEPS + 1))
    for step, loss in one.losses.items():
        assert math.isclose(run.losses[step], loss, rel_tol=LOSS_TOLERANCE), f"step {step}"
    assert sum(mask.numel() for mask in run.masks.values()) == NUM_PRUNABLE
    assert sum(int((~mask).sum()) for mask in run.masks.values()) == math.floor(0.6 * NUM_PRUNABLE)
    for name, mask in one.masks.items():
        assert torch.equal(run.masks[name], mask), name
        assert not run.weights[name][~mask].any(), name
    for name, weight in one.weights.items():
        torch.testing.assert_close(run.weights[name], weight, rtol=0, atol=STATE_TOLERANCE, msg=name)
    for name, value in metrics(one).items():
        assert math.isclose(metrics(run)[name], value, rel_tol=1e-5), name


@pytest.mark.parametrize("kind", ["Hubert", "WavLM"])
@pytest.mark.parametrize("strategy", [cell(s, always=s == "ddp") for s in FEW[:2]])
def test_other_models_of_the_family_train_on_two_ranks(
    gangs: Gangs, speech: TinySpeech, strategy: str, kind: str
) -> None:
    """DDP waits for a gradient of every weight; none may be left without use."""
    place = speech.root / kind
    if not place.is_dir():
        write_model(place, kind=kind)
    run = gangs.run(case(speech, strategy=strategy, num_ranks=2, model=kind))
    assert sum(int((~mask).sum()) for mask in run.masks.values()) == math.floor(0.6 * NUM_PRUNABLE)
    assert sum(mask.numel() for mask in run.masks.values()) == NUM_PRUNABLE


@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_batches_by_seconds_are_the_same_on_any_gang(gangs: Gangs, speech: TinySpeech, strategy: str) -> None:
    train = (("batch_seconds", 12.0), ("micro_batch_seconds", 3.0))
    two = gangs.run(case(speech, strategy=strategy, num_ranks=2, train=train))
    one = gangs.run(case(speech, strategy="ddp", train=train))
    for step, loss in one.losses.items():
        assert math.isclose(two.losses[step], loss, rel_tol=LOSS_TOLERANCE), f"step {step}"
    assert all(torch.equal(two.masks[name], mask) for name, mask in one.masks.items())


def test_the_feature_encoder_stays_as_it_was_and_the_rest_learns(gangs: Gangs, speech: TinySpeech) -> None:
    from safetensors.torch import load_file

    start = load_file(speech.model / "model.safetensors")
    for precision in ("fp32", "bf16"):
        run = gangs.run(case(speech, {"name": "dense"}, strategy="zero2", num_ranks=2, precision=precision))
        for name, weight in run.weights.items():
            if name in start:
                assert torch.equal(weight, start[name]) == ("feature_extractor" in name), name


@pytest.mark.parametrize("strategy", [cell(s, always=s == "zero2") for s in FEW])
def test_a_gang_killed_while_adjusting_resumes_to_the_bit(gangs: Gangs, speech: TinySpeech, strategy: str) -> None:
    """Killed after step 7, prunings every 3, checkpoints every 5 steps; dropout and SpecAugment on."""
    stopped = case(speech, strategy=strategy, num_ranks=2, dropout=0.1, train=TRAIN)
    assert_same_end(kill_and_resume(gangs, stopped), gangs.run(stopped))


def test_a_model_that_learns_is_read_by_transformers_alone(gangs: Gangs, speech: TinySpeech, tmp_path: Path) -> None:
    """120 steps on tones: the error rate falls; ``AutoProcessor`` and ``AutoModelForCTC`` say the same elsewhere."""
    train = (("num_steps", 150), ("lr", {"peak": 1e-2, "schedule": "tri_stage", "warmup": 0.1}), ("batch_size", 12),
             ("micro_batch_size", 12), ("log_every", 10))  # fmt: skip
    method = {"name": "parp", "final_sparsity": 0.3, "update_every": 25}
    run = gangs.run(case(speech, method, strategy="ddp", train=train, task=(("spec_augment", None),)))
    assert metrics(run)["eval/cer"] < 0.5
    clip = speech.tsv(split="test").parent / "clips" / "test-0.wav"
    code = (
        "import soundfile, torch\n"
        "from transformers import AutoModelForCTC, AutoProcessor\n"
        f"where = {str(run.directory.artifacts / 'model')!r}\n"
        "processor, model = AutoProcessor.from_pretrained(where), AutoModelForCTC.from_pretrained(where).eval()\n"
        f"samples, rate = soundfile.read({str(clip)!r})\n"
        "with torch.no_grad():\n"
        "    said = model(**processor(samples, sampling_rate=rate, return_tensors='pt')).logits.argmax(-1)\n"
        "print(processor.batch_decode(said)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    meant = speech.tsv(split="test").read_text(encoding="utf-8").splitlines()[1].split("\t")[2]
    assert set(done.stdout.strip()) & set(meant), (done.stdout, meant)


def test_a_head_of_another_language_is_refused_kept_or_replaced(gangs: Gangs, speech: TinySpeech) -> None:
    spanish = gangs.run(case(speech, {"name": "dense"}))
    trained = str(spanish.directory.artifacts / "model")
    turkish = replace(case(speech, {"name": "dense"}), languages=("tr",), model=trained)
    refused = gangs.attempt(turkish, gangs.new_directory())
    assert not refused.succeeded
    assert refused.error.reason == "user_error"
    assert "has a head for other units: it lacks 'é', 'ğ'" in refused.error.message
    assert "model: {head: new}" in refused.error.message
    renewed = gangs.run(replace(turkish, head="new"))
    assert renewed.weights["lm_head.weight"].shape[0] == spanish.weights["lm_head.weight"].shape[0] + 2
    augment = ("spec_augment", SPEC_AUGMENT)
    kept = gangs.run(replace(turkish, task=(augment, ("transcripts", {"vocabulary": "model"}))))
    assert kept.weights["lm_head.weight"].shape == spanish.weights["lm_head.weight"].shape


def test_two_languages_make_one_vocabulary_and_each_has_its_own_error_rate(gangs: Gangs, speech: TinySpeech) -> None:
    run = gangs.run(replace(case(speech), languages=("es", "tr")))
    assert {"eval/cer", "eval/cer/es", "eval/cer/tr", "eval/wer/es"} <= set(metrics(run))


def test_a_mask_of_another_model_is_the_first_of_parp(gangs: Gangs, speech: TinySpeech, tmp_path: Path) -> None:
    """PARP from a random model's mask: after no pruning between, IOU with it is not 1, for the last pruning adjusts."""
    write_model(tmp_path / "other", seed=1)
    at_once = {
        "name": "gradual_magnitude", "initial_sparsity": 0.6, "final_sparsity": 0.6, "growth_window": [0.0, 0.0],
        "selection_window": [0.0, 0.0], "scope": "global", "prunable": {"biases": True},
    }  # fmt: skip
    other = gangs.run(replace(case(speech, at_once, model=str(tmp_path / "other")), train=(("num_steps", 1),)))
    fixed = gangs.run(
        case(speech, {"name": "locked", "mask": str(other.directory.artifacts), "prunable": {"biases": True}})
    )
    assert all(torch.equal(fixed.masks[name], mask) for name, mask in other.masks.items())
    adjusted = gangs.run(case(speech, {**PARP, "initial_sparsity": 0.6, "mask": str(other.directory.artifacts)}))
    assert any(not torch.equal(adjusted.masks[name], mask) for name, mask in other.masks.items())
    missing = gangs.attempt(
        case(speech, {"name": "locked", "mask": str(other.directory.artifacts)}), gangs.new_directory()
    )
    assert "take them in (for biases: prunable: {biases: true})" in missing.error.message
