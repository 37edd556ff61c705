"""What the task says of held-out clips, against numbers worked out frame by frame from transformers' outputs."""

import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import HubertConfig, HubertModel, PreTrainedModel, Wav2Vec2FeatureExtractor

from prunus.jobs.data.speech.speech_input import SpeechInput
from prunus.jobs.errors import ModelError
from prunus.jobs.models.compatibility import check_same_units
from prunus.jobs.ranks import Ranks
from prunus.jobs.tasks.wav2vec2_pretraining import PretrainingTask
from tests.jobs.tiny_speech import ALONE, NUM_NEGATIVES, pretraining_batch, pretraining_model, pretraining_spec

Batch = dict[str, torch.Tensor]
CODES = 8
DATA: Any = SimpleNamespace(labels=(), eval_groups=(), processor=SimpleNamespace(sampling_rate=16_000))


@pytest.fixture
def task() -> PretrainingTask:
    return PretrainingTask(pretraining_spec(diversity_weight=0.3), DATA)


def rows(batch: Batch, *which: int, weights: list[float]) -> Batch:
    return {name: value[list(which)] for name, value in batch.items()} | {"weight": torch.tensor(weights)}


def by_hand(model: PreTrainedModel, batch: Batch) -> dict[str, float]:
    """One masked frame after the other."""
    model.eval()
    with torch.no_grad():
        said = model(
            batch["input_values"], attention_mask=batch["attention_mask"], mask_time_indices=batch["time_mask"]
        )
        features = model.wav2vec2(batch["input_values"], attention_mask=batch["attention_mask"]).extract_features
        codes = model.quantizer.weight_proj(features).unflatten(2, (2, CODES)).argmax(3)
    total, wins, used = 0.0, 0, [Counter[int](), Counter[int]()]
    frames = batch["time_mask"].nonzero().tolist()
    for clip, true in frames:

        def score(frame: int, clip: int = clip, true: int = true) -> float:
            context = said.projected_states[clip, true]
            return F.cosine_similarity(context, said.projected_quantized_states[clip, frame], dim=0).item() / 0.1

        negatives = batch["negatives"][clip, true].tolist()
        assert len(negatives) == NUM_NEGATIVES
        scores = [score(n) for n in negatives if not torch.equal(codes[clip, n], codes[clip, true])]
        total -= score(true) - math.log(sum(map(math.exp, [score(true), *scores])))
        wins += all(score(true) > other for other in scores)
        for group in (0, 1):
            used[group][int(codes[clip, true, group])] += 1
    entropies = [-sum(n / len(frames) * math.log(n / len(frames)) for n in group.values()) for group in used]
    perplexity = sum(map(math.exp, entropies))
    return {
        "eval/loss": total / len(frames) + 0.3 * (1 - perplexity / 16),
        "eval/contrastive": total / len(frames),
        "eval/diversity": 1 - perplexity / 16,
        "eval/perplexity_codes": perplexity,
        "eval/accuracy": wins / len(frames),
    }


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_metrics_are_those_of_all_frames_however_they_are_cut(gang: Any, task: PretrainingTask, num_ranks: int) -> None:
    """Clip 2 fills up a batch of another rank and does not count there."""
    whole = pretraining_batch()
    batches = [rows(whole, 0, 1, weights=[1, 1]), rows(whole, 2, 2, weights=[1, 0])]
    models = [pretraining_model() for _ in range(num_ranks)]  # not in the threads: they share torch's generator

    def evaluate(ranks: Ranks) -> dict[str, float]:
        objective = task.build_objective(models[ranks.rank], None, ALONE, False).eval()
        engine: Any = SimpleNamespace(objective=objective, measure=lambda batch: objective(batch, [1.0]))
        mine: Any = batches[ranks.rank :: ranks.world_size]
        with torch.no_grad():
            return task.evaluate(engine, mine, ranks)

    expected = by_hand(pretraining_model(), whole)
    assert 0 < expected["eval/accuracy"] < 1
    for found in gang(num_ranks, evaluate):
        assert found.keys() == expected.keys()
        assert found == pytest.approx(expected, rel=1e-4)


def test_the_model_learns_to_fill_masked_frames_and_draws_none_itself(task: PretrainingTask) -> None:
    changed = task.model_overrides()
    assert changed["apply_spec_augment"] is True
    assert changed["mask_time_prob"] > 0
    assert changed["mask_feature_prob"] == 0.0
    assert changed["layerdrop"] == 0.0
    config = pretraining_model().config
    assert all(hasattr(config, name) for name in changed)


def test_a_model_without_this_quantiser_is_refused(task: PretrainingTask) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    hubert = HubertModel(HubertConfig(**small, conv_dim=(8,) * 7))
    with pytest.raises(ModelError, match=r"HubertModel .* is not the plain wav2vec 2.0"):
        task.prepare(hubert)
    task.prepare(pretraining_model())


def test_a_head_for_units_is_no_obstacle_to_pretraining_its_encoder_further() -> None:
    config = pretraining_model().config
    config.architectures = ["Wav2Vec2ForCTC"]
    check_same_units(SpeechInput(Wav2Vec2FeatureExtractor(), config, ("<pad>", "a")), (), "job:es")


@pytest.mark.parametrize(
    ("codes", "loss", "warns"), [(2.0, 1.0, True), (2.5, 1.0, True), (4.0, 0.0, True), (4.0, 1.0, False)]
)
def test_a_collapsed_quantiser_is_told(task: PretrainingTask, codes: float, loss: float, warns: bool) -> None:
    task.build_objective(pretraining_model(), None, ALONE, False)
    said = task.warning({"eval/perplexity_codes": codes, "eval/contrastive": loss})
    assert ("the quantiser has collapsed" in said) == warns
    assert task.warning({}) == ""
