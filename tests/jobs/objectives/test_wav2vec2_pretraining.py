"""The loss of wav2vec 2.0 against that of transformers' ``Wav2Vec2ForPreTraining.forward`` and sums by hand."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from prunus.jobs.objectives import wav2vec2_pretraining as pretraining_objective
from prunus.jobs.objectives.wav2vec2_pretraining import contrastive_logits, diversity_loss, masked_frames, perplexity
from tests.jobs.tiny_speech import NUM_NEGATIVES, objective, pretraining_batch, pretraining_model

GROUPS, CODES = 2, 8
Batch = dict[str, torch.Tensor]


@pytest.fixture
def batch() -> Batch:
    return pretraining_batch()


@pytest.fixture
def noise_NGV(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.Tensor]:
    """Gumbel noise of every frame, drawn once: transformers quantises all frames, we the masked ones."""
    generator = torch.Generator().manual_seed(5)
    noise = -torch.empty(batch["time_mask"].numel(), GROUPS, CODES).exponential_(generator=generator).log()
    monkeypatch.setattr(pretraining_objective, "gumbel_noise", lambda like: noise[batch["time_mask"].flatten()])

    def gumbel_softmax(logits: torch.Tensor, tau: float, hard: bool) -> torch.Tensor:
        assert hard
        soft = ((logits + noise.view(-1, CODES)) / tau).softmax(1)
        # In brackets: (1 + soft) - soft is not 1 to the last bit, and transformers tells equal codes by equal vectors.
        return F.one_hot(soft.argmax(1), CODES) + (soft - soft.detach())

    monkeypatch.setattr(torch.nn.functional, "gumbel_softmax", gumbel_softmax)
    yield noise


def theirs(model: PreTrainedModel, batch: Batch) -> Any:
    """transformers' own forward; it counts negatives over the whole batch."""
    clips, frames = batch["time_mask"].shape
    return model(
        batch["input_values"],
        attention_mask=batch["attention_mask"],
        mask_time_indices=batch["time_mask"],
        sampled_negative_indices=batch["negatives"] + frames * torch.arange(clips)[:, None, None],
    )


def gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def check_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    largest = max(float(grad.abs().max()) for grad in expected.values())
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-6 * largest, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("training", [False, True])
def test_loss_and_gradients_are_those_of_transformers(batch: Batch, noise_NGV: torch.Tensor, training: bool) -> None:
    other = pretraining_model().train(training)
    other.set_gumbel_temperature(1.5)
    expected = theirs(other, batch)
    expected.loss.backward()
    model = pretraining_model()
    ours = objective(model, gumbel={"max": 1.5, "decay": 1.0}).train(training)
    loss, sums, facts = ours(batch, [1.0])
    loss.backward()
    assert loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    assert sums.tolist() == [loss.item()]
    check_equal(gradients(model), gradients(other))
    if training:
        assert facts is None
        assert set(gradients(model)) == {name for name, _ in model.named_parameters()}  # DDP waits for every one
    else:
        contrastive, _, counts_GV = facts
        frames = batch["time_mask"].sum()
        assert contrastive.item() == pytest.approx(expected.contrastive_loss.item(), rel=1e-5)
        assert perplexity(counts_GV / frames).item() == pytest.approx(expected.codevector_perplexity.item(), rel=1e-5)


def test_the_scale_is_in_the_loss_before_backward(batch: Batch, noise_NGV: torch.Tensor) -> None:
    whole, scaled = pretraining_model(), pretraining_model()
    objective(whole)(batch, [1.0])[0].backward()
    loss, sums, _ = objective(scaled)(batch, [1 / 25])
    loss.backward()
    assert loss.item() == pytest.approx(sums[0].item() / 25)
    check_equal(gradients(scaled), {name: grad / 25 for name, grad in gradients(whole).items()})


def halves(batch: Batch) -> list[Batch]:
    return [{name: value[rows] for name, value in batch.items()} for rows in (slice(0, 1), slice(1, 3))]


def cut_noise(noise_NGV: torch.Tensor, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise of each clip goes with it into its half."""
    noise_BTGV = noise_NGV.view(*batch["time_mask"].shape, GROUPS, CODES)
    parts = iter([noise_BTGV[rows][part["time_mask"]] for rows, part in zip(([0], [1, 2]), halves(batch), strict=True)])
    monkeypatch.setattr(pretraining_objective, "gumbel_noise", lambda like: next(parts))


def test_two_micro_batches_give_the_gradients_of_one_without_the_diversity_term(
    batch: Batch, noise_NGV: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = pretraining_model(), pretraining_model()
    objective(whole, diversity_weight=0.0)(batch, [1.0])[0].backward()
    cut_noise(noise_NGV, batch, monkeypatch)
    ours = objective(cut, diversity_weight=0.0)
    for half in halves(batch):
        ours(half, [1.0])[0].backward()
    check_equal(gradients(cut), gradients(whole))


def test_of_two_micro_batches_each_has_a_diversity_term_of_its_own(
    batch: Batch, noise_NGV: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weighted by their masked frames, so the sum of two is what a batch of equal parts would have."""

    def with_and_without(inputs: Batch) -> list[float]:
        return [objective(pretraining_model(), diversity_weight=w)(inputs, [1.0])[1][0].item() for w in (0.0, 0.1)]

    plain, diverse = with_and_without(batch)
    twice = {name: torch.cat([value, value]) for name, value in batch.items()}
    monkeypatch.setattr(
        pretraining_objective, "gumbel_noise", lambda like: noise_NGV.repeat(2, 1, 1)[twice["time_mask"].flatten()]
    )
    plain_twice, diverse_twice = with_and_without(twice)
    assert diverse_twice - plain_twice == pytest.approx(2 * (diverse - plain), rel=1e-4)
    assert diverse > plain


def test_frames_that_are_not_masked_and_rows_that_fill_up_do_not_count(batch: Batch) -> None:
    model = objective(pretraining_model()).eval()
    _, whole, _ = model(halves(batch)[1], [1.0])
    weighted = {**batch, "weight": torch.tensor([0.0, 1.0, 1.0])}
    _, sums, (_, wins, counts_GV) = model(weighted, [1.0])
    frames = int(batch["time_mask"][1:].sum())
    assert sums[0].item() == pytest.approx(whole[0].item(), rel=1e-5)
    assert model.counts(weighted).tolist() == [frames]
    assert counts_GV.sum(1).tolist() == [frames, frames]
    assert 0 <= int(wins) <= frames
    assert masked_frames(weighted)[0].sum() == 0


def test_a_batch_without_masked_frames_gives_zero_gradients_to_every_weight(batch: Batch) -> None:
    """Engines wait for a gradient of every weight on every rank."""
    model = pretraining_model()
    nothing = {**batch, "time_mask": torch.zeros_like(batch["time_mask"])}
    loss, _, _ = objective(model)(nothing, [1.0])
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_padding_is_not_seen(batch: Batch) -> None:
    model = objective(pretraining_model()).eval()
    louder = {**batch, "input_values": torch.where(batch["attention_mask"] > 0, batch["input_values"], 3.0)}
    assert model(louder, [1.0])[0].item() == pytest.approx(model(batch, [1.0])[0].item(), rel=1e-4)


def test_logits_by_hand() -> None:
    """Frames 0, 2 and 3 of a clip of four; the negatives of frame 2 are frame 0, which has another code, and frame 3,
    which has the same."""
    context = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
    targets = torch.tensor([[2.0, 0.0], [0.0, 5.0], [0.0, 5.0]])
    masked = torch.tensor([[True, False, True, True]])
    negatives = torch.tensor([[[2, 3], [0, 0], [0, 3], [0, 2]]])
    logits = contrastive_logits(context, targets, torch.tensor([7, 9, 9]), masked, negatives, 0.5)
    never = -math.inf
    expected = torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, never], [1.6, 1.2, never]])
    torch.testing.assert_close(logits, expected)


def test_negatives_of_a_clip_are_sought_in_that_clip() -> None:
    context = torch.eye(4)
    masked = torch.tensor([[True, True], [True, True]])
    negatives = torch.tensor([[[1], [0]], [[1], [0]]])
    logits = contrastive_logits(context, context, torch.arange(4), masked, negatives, 1.0)
    assert torch.equal(logits, torch.tensor([[1.0, 0.0]] * 4))


def test_perplexity_counts_the_codes_in_use() -> None:
    even, one = torch.full((2, 4), 0.25), torch.tensor([[1.0, 0, 0, 0], [0, 0, 1.0, 0]])
    assert perplexity(even).item() == pytest.approx(8.0)
    assert perplexity(one).item() == pytest.approx(2.0)
    # mean softmax (3/4, 1/4): exp(-(0.75 ln 0.75 + 0.25 ln 0.25)) = 1.7548; (2 - 1.7548) / 2 x 2 frames
    assert diversity_loss(torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]])).item() == pytest.approx(0.24523, abs=1e-4)


def test_a_code_that_no_frame_could_choose_gives_finite_gradients() -> None:
    """Its softmax underflows to 0; the derivative of p log p there is infinite."""
    logits = torch.tensor([[[0.0, -200.0, 1.0]]], requires_grad=True)
    diversity_loss(logits.softmax(2)).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_temperature_falls_with_optimizer_steps_to_its_floor() -> None:
    model = objective(pretraining_model(), gumbel={"max": 2.0, "min": 0.5, "decay": 0.9})
    found = []
    for step in (0, 1, 10, 1000):
        model.step = step
        found.append(model.gumbel_temperature)
    assert found == pytest.approx([2.0, 1.8, 2 * 0.9**10, 0.5])


def test_noise_comes_from_the_generator_and_evaluation_has_none(batch: Batch) -> None:
    model = objective(pretraining_model())

    def loss(seed: int) -> float:
        torch.manual_seed(seed)
        return float(model(batch, [1.0])[1][0])

    model.train()
    assert loss(1) == loss(1) != loss(2)
    model.eval()
    assert loss(1) == loss(2)


def test_gumbel_noise_has_the_distribution_of_its_name() -> None:
    torch.manual_seed(0)
    noise = pretraining_objective.gumbel_noise(torch.empty(200_000))
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)  # Euler's constant
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.03)


def test_bf16_autocast_is_close(batch: Batch) -> None:
    exact = objective(pretraining_model()).eval()(batch, [1.0])[0]
    near = objective(pretraining_model(), autocast=True).eval()(batch, [1.0])[0]
    assert near.dtype == torch.float32
    assert near.item() == pytest.approx(exact.item(), rel=0.05)
    near.backward()


def test_closing_gives_the_quantiser_its_forward_back(batch: Batch) -> None:
    model = pretraining_model().eval()
    before = theirs(model, batch).loss.item()
    ours = objective(model)
    ours.close()
    assert theirs(model, batch).loss.item() == before
    assert batch["negatives"].shape[2] == NUM_NEGATIVES
