"""A wav2vec 2.0 of some thousand weights, and batches of noise for its pre-training."""

from typing import Any

import numpy as np
import torch
from transformers import AutoModelForPreTraining, PreTrainedModel

from prunus.configs.tasks.wav2vec2_pretraining import Wav2Vec2Pretraining
from prunus.jobs.data.speech.batches.pretraining_masks import PretrainingMasks
from prunus.jobs.examples.speech_model import small_config
from prunus.jobs.objectives.base import Weights
from prunus.jobs.objectives.wav2vec2_pretraining import PretrainingObjective

ALONE = Weights(task=1.0, teacher=0.0, temperature=1.0, predicted_only=False, chunk_rows=1)
NUM_SAMPLES = (8000, 6000, 3000)
"""24, 18 and 9 frames."""
NUM_NEGATIVES = 10


def pretraining_model(seed: int = 0) -> PreTrainedModel:
    """Two blocks of width 32, two groups of 8 codes; no dropout."""
    torch.manual_seed(seed)
    return AutoModelForPreTraining.from_config(
        small_config(hidden=32, layers=2, heads=2, channels=(16,), codes=8, dropout=0.0)
    )


def pretraining_spec(**changed: Any) -> Wav2Vec2Pretraining:
    """Ten negatives, spans of four frames."""
    fixed = {"data": {"train": {"files": ["a.wav"]}}, "num_negatives": NUM_NEGATIVES, "time_length": 4}
    return Wav2Vec2Pretraining.model_validate({**fixed, **changed})


def objective(model: PreTrainedModel, autocast: bool = False, **changed: Any) -> PretrainingObjective:
    """Model and loss."""
    return PretrainingObjective(model, ALONE, autocast, pretraining_spec(**changed))


def pretraining_batch(seed: int = 1) -> dict[str, torch.Tensor]:
    """Three clips of noise."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(NUM_SAMPLES)
    attended_BS = torch.arange(longest)[None] < torch.tensor(NUM_SAMPLES)[:, None]
    frames_B = pretraining_model()._get_feat_extract_output_lengths(torch.tensor(NUM_SAMPLES)).numpy()
    masks = PretrainingMasks(time_prob=0.65, time_length=4, num_negatives=NUM_NEGATIVES, seed=seed)
    return {
        "input_values": torch.randn(len(NUM_SAMPLES), longest, generator=generator) * attended_BS,
        "attention_mask": attended_BS.long(),
        **masks.batch(frames_B, np.arange(3), np.zeros(3, dtype=np.int64), int(frames_B.max())),
    }
