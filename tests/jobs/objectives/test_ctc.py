"""CTC against all alignments counted by hand, and how clips, fill rows and SpecAugment count."""

import itertools
import math
from typing import Any

import pytest
import torch
import transformers

from prunus.jobs.objectives.base import Weights
from prunus.jobs.objectives.ctc import CTCObjective, ctc_loss
from prunus.jobs.objectives.projection_loss import IGNORED

ALONE = Weights(task=1.0, teacher=0.0, temperature=1.0, predicted_only=False, chunk_rows=8)
HIDDEN = 16


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    once = [unit for i, unit in enumerate(path) if i == 0 or unit != path[i - 1]]
    return tuple(unit for unit in once if unit != 0)


def by_all_alignments(logits_TV: torch.Tensor, units: tuple[int, ...]) -> float:
    """-log of the sum of the probabilities of all paths that collapse to the units (Graves 2006, equation 3)."""
    probabilities = logits_TV.double().softmax(1)
    frames, vocabulary = probabilities.shape
    total = 0.0
    for path in itertools.product(range(vocabulary), repeat=frames):
        if collapsed(path) == units:
            total += math.prod(float(probabilities[t, unit]) for t, unit in enumerate(path))
    return -math.log(total)


def test_the_loss_is_the_sum_over_all_alignments() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 3)
    labels = torch.tensor([[1, 2], [2, 2], [1, IGNORED]])
    frames = torch.tensor([4, 4, 2])
    expected = [
        by_all_alignments(logits[0], (1, 2)),
        by_all_alignments(logits[1], (2, 2)),  # needs a blank between the two
        by_all_alignments(logits[2, :2], (1,)),
    ]
    assert float(ctc_loss(logits, frames, labels, 0)) == pytest.approx(sum(expected), rel=1e-6)
    weight = torch.tensor([1.0, 0.0, 1.0])
    assert float(ctc_loss(logits, frames, labels, 0, weight)) == pytest.approx(expected[0] + expected[2], rel=1e-6)


def test_the_blank_is_wherever_the_vocabulary_has_it() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 3)
    moved = logits[:, :, [1, 2, 0]]  # units 1 and 2 become 0 and 1, the blank 2
    first = ctc_loss(logits, torch.tensor([4]), torch.tensor([[1, 2]]), 0)
    assert float(ctc_loss(moved, torch.tensor([4]), torch.tensor([[0, 1]]), 2)) == pytest.approx(float(first), rel=1e-6)


def test_a_transcript_longer_than_its_audio_counts_nothing_and_has_no_gradient() -> None:
    logits = torch.randn(1, 2, 3, requires_grad=True)
    loss = ctc_loss(logits, torch.tensor([2]), torch.tensor([[1, 1]]), 0)  # 1 _ 1 takes 3 frames
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_low_precision_logits_are_summed_in_fp32() -> None:
    logits = torch.randn(1, 4, 3).bfloat16()
    loss = ctc_loss(logits, torch.tensor([4]), torch.tensor([[1, 2]]), 0)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(by_all_alignments(logits[0].float(), (1, 2)), rel=1e-6)


def objective(kind: str = "Wav2Vec2", average: Any = "units", freeze_updates: int = 0, **changed: Any) -> CTCObjective:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        **{
            "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20,
            "conv_dim": (8, 8), "conv_kernel": (10, 4), "conv_stride": (8, 4), "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2, "feat_extract_norm": "layer", "do_stable_layer_norm": True,
            "vocab_size": 5, "pad_token_id": 0, "hidden_dropout": 0.0, "attention_dropout": 0.0,
            "activation_dropout": 0.0, "feat_proj_dropout": 0.0, "final_dropout": 0.0, "layerdrop": 0.0,
            "mask_time_prob": 0.5, "mask_feature_prob": 0.5, **changed,
        }
    )  # fmt: skip
    student = getattr(transformers, f"{kind}ForCTC")(config)
    return CTCObjective(student, ALONE, False, average, freeze_updates)


def batch(**changed: torch.Tensor) -> dict[str, torch.Tensor]:
    """Two clips of 400 and 256 samples: 12 and 7 frames."""
    torch.manual_seed(1)
    mask = torch.zeros(2, 400, dtype=torch.long)
    mask[0], mask[1, :256] = 1, 1
    return {
        "input_values": torch.randn(2, 400) * mask,
        "attention_mask": mask,
        "labels": torch.tensor([[1, 2, 3], [4, 1, IGNORED]]),
        "weight": torch.ones(2),
        "group": torch.zeros(2, dtype=torch.long),
        **changed,
    }


@pytest.mark.parametrize("kind", ["Wav2Vec2", "Hubert", "WavLM"])
def test_the_loss_is_what_transformers_computes_for_the_same_clips(kind: str) -> None:
    ours = objective(kind)
    ours.train(False)
    one = batch()
    _, sums, (best, frames) = ours(one, 1.0, 0.0)
    ours.student.config.ctc_loss_reduction = "sum"
    theirs = ours.student(one["input_values"], attention_mask=one["attention_mask"], labels=one["labels"])
    assert float(sums[0].detach()) == pytest.approx(float(theirs.loss.detach()), rel=1e-5)
    assert torch.equal(best, theirs.logits.argmax(-1))
    assert frames.tolist() == [12, 7]


def test_what_counts_is_units_or_clips_and_never_a_row_that_fills_up() -> None:
    assert objective().counts(batch()).tolist() == [5.0, 0.0]
    assert objective(average="clips").counts(batch()).tolist() == [2.0, 0.0]
    filled = batch(weight=torch.tensor([1.0, 0.0]))
    assert objective().counts(filled).tolist() == [3.0, 0.0]
    assert objective(average="clips").counts(filled).tolist() == [1.0, 0.0]


def test_a_row_that_fills_up_leaves_loss_and_gradients_alone() -> None:
    ours = objective()
    gradients = []
    for one in (batch(weight=torch.tensor([1.0, 0.0])), {k: v[:1] for k, v in batch().items()}):
        ours.zero_grad()
        loss, _, _ = ours(one, 1.0, 0.0)
        loss.backward()
        gradients.append([p.grad.clone() for p in ours.parameters() if p.grad is not None])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_padding_does_not_reach_a_model_that_is_told_of_it() -> None:
    ours = objective()
    ours.train(False)
    one = {k: v[1:] for k, v in batch().items()}
    padded = ours(one, 1.0, 0.0)[1]
    cut = {**one, "input_values": one["input_values"][:, :256], "attention_mask": one["attention_mask"][:, :256]}
    assert float(padded[0]) == pytest.approx(float(ours(cut, 1.0, 0.0)[1][0]), rel=1e-5)


def test_masked_frames_become_the_learned_vector_and_masked_channels_zero() -> None:
    ours = objective()
    seen: list[torch.Tensor] = []
    ours.student.base_model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    time_mask = torch.zeros(2, 12, dtype=torch.bool)
    time_mask[0, 3:5] = True
    channel_mask = torch.zeros(2, HIDDEN, dtype=torch.bool)
    channel_mask[1, 2] = True
    for extra in ({}, {"time_mask": time_mask, "channel_mask": channel_mask}):
        ours(batch(**extra), 1.0, 0.0)
    plain, masked = seen
    embed = ours.student.base_model.masked_spec_embed.detach()
    assert torch.equal(masked[0, 3:5], embed.expand(2, -1))
    assert not masked[1, :, 2].any()
    untouched = ~time_mask[:, :, None] & ~channel_mask[:, None, :]
    assert torch.equal(masked[untouched], plain[untouched])


def test_while_frozen_only_the_head_has_gradients_that_are_not_zero() -> None:
    ours = objective(freeze_updates=3)
    for step, learns in ((2, False), (3, True)):
        ours.step = step
        ours.zero_grad()
        ours(batch(), 1.0, 0.0)[0].backward()
        moved = {name for name, p in ours.student.named_parameters() if p.grad is not None and p.grad.any()}
        assert "lm_head.weight" in moved
        assert any(name.startswith("wav2vec2.encoder") for name in moved) == learns
        assert all(
            p.grad is not None
            for name, p in ours.student.named_parameters()
            if name.startswith("wav2vec2.encoder.layers")
        )
