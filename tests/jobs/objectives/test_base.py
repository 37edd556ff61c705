"""Student plus loss against transformers' own loss and against KL divergence over whole logits."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import DistilBertConfig, DistilBertForMaskedLM, PreTrainedModel, RobertaConfig, RobertaForMaskedLM

from prunus.jobs.errors import ModelError
from prunus.jobs.objectives.base import Weights
from prunus.jobs.objectives.sequences import SequenceObjective
from prunus.jobs.objectives.tokens import TokenObjective
from tests.jobs.tiny import batch, bert, bert_classifier

ALONE = Weights(task=1.0, teacher=0.0, temperature=1.0, predicted_only=False, chunk_rows=2)
MIXED = Weights(task=0.5, teacher=0.5, temperature=2.0, predicted_only=False, chunk_rows=3)


def distilbert() -> PreTrainedModel:
    torch.manual_seed(0)
    return DistilBertForMaskedLM(
        DistilBertConfig(
            vocab_size=16, dim=8, n_layers=2, n_heads=2, hidden_dim=12, max_position_embeddings=16, dropout=0.0,
            attention_dropout=0.0, initializer_range=0.5,
        )
    )  # fmt: skip


def roberta() -> PreTrainedModel:
    torch.manual_seed(0)
    return RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=16, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=16,
            initializer_range=0.5, pad_token_id=0,
        )
    )  # fmt: skip


def own_gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """transformers' loss (a mean over predicted tokens), differentiated."""
    model(**batch()).loss.backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return grads


@pytest.mark.parametrize("build", [bert, distilbert, roberta])
def test_masked_lm_loss_and_gradients_are_those_of_transformers(build: Any) -> None:
    model = build()
    expected_loss, expected = model(**batch()).loss.item(), own_gradients(model)
    objective = TokenObjective(model, None, ALONE, autocast=False)
    loss, sums, _ = objective(batch(), [1 / 3])
    assert loss.item() == pytest.approx(expected_loss, rel=1e-5)
    assert sums.tolist() == pytest.approx([3 * expected_loss], rel=1e-5)
    loss.backward()
    for name, parameter in model.named_parameters():
        if name in expected:
            assert parameter.grad is not None, name
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("predicted_only", "num_rows"), [(False, 10), (True, 3)])
def test_distillation_counts_all_tokens_but_padding_or_the_predicted_ones(predicted_only: bool, num_rows: int) -> None:
    student, teacher = bert(0), bert(1)
    inputs = {key: value for key, value in batch().items() if key != "labels"}
    z, u = student(**inputs).logits.double(), teacher(**inputs).logits.double()
    kl_BL = F.kl_div(torch.log_softmax(z / 2, 2), torch.softmax(u / 2, 2), reduction="none").sum(2) * 4
    rows_BL = batch()["labels"] != -100 if predicted_only else batch()["attention_mask"].bool()
    task = F.cross_entropy(z.view(-1, 16), batch()["labels"].view(-1), reduction="sum")
    weights = Weights(0.5, 0.5, 2.0, predicted_only, 3)
    objective = TokenObjective(student, teacher, weights, autocast=False)
    assert objective.counts(batch()).tolist() == [3, num_rows]
    loss, sums, _ = objective(batch(), [1 / 3, 1 / num_rows])
    assert sums.tolist() == pytest.approx([task.item(), kl_BL[rows_BL].sum().item()], rel=1e-5)
    assert loss.item() == pytest.approx(0.5 * task.item() / 3 + 0.5 * kl_BL[rows_BL].mean().item(), rel=1e-5)


def test_evaluation_without_a_teacher_scale_asks_no_teacher() -> None:
    student, teacher = bert(0), bert(1)
    objective = TokenObjective(student, teacher, MIXED, autocast=False)
    teacher.bert.forward = None  # calling it would fail
    assert objective.only_task == (1.0, 0.0)
    _, sums, _ = objective(batch(), objective.only_task)
    assert sums[0].item() == pytest.approx(3 * bert(0)(**batch()).loss.item(), rel=1e-5)


def test_the_task_is_measured_even_where_only_the_teacher_is_learned_from() -> None:
    pure = Weights(task=0.0, teacher=1.0, temperature=2.0, predicted_only=False, chunk_rows=3)
    _, sums, _ = TokenObjective(bert(0), bert(1), pure, autocast=False)(batch(), [1.0, 0.0])
    assert sums[0].item() == pytest.approx(3 * bert(0)(**batch()).loss.item(), rel=1e-5)


def test_the_teacher_is_neither_a_parameter_nor_saved_nor_moved_to_train_mode() -> None:
    student, teacher = bert(0), bert(1).eval()
    objective = TokenObjective(student, teacher, MIXED, autocast=False)
    theirs = {id(p) for p in teacher.parameters()}
    assert not theirs & {id(p) for p in objective.parameters()}
    assert {name.removeprefix("student.") for name in objective.state_dict()} == set(student.state_dict())
    objective.train()
    assert not teacher.training
    assert objective.teacher is teacher
    objective(batch(), [1.0, 1.0])[0].backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_closing_gives_the_student_its_logits_back() -> None:
    model = bert()
    inputs = {key: value for key, value in batch().items() if key != "labels"}
    before = model(**inputs).logits
    objective = TokenObjective(model, None, ALONE, autocast=False)
    assert model(**inputs).logits.shape == (2, 6, 8)  # the input of the last layer
    objective.close()
    assert torch.equal(model(**inputs).logits, before)


def test_tied_embeddings_get_both_gradients() -> None:
    model = bert()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    TokenObjective(model, None, ALONE, autocast=False)(batch(), [1.0])[0].backward()
    tied = model.get_input_embeddings().weight.grad.clone()
    other = bert()
    (other(**batch()).loss * 3).backward()
    torch.testing.assert_close(tied, other.get_input_embeddings().weight.grad, rtol=1e-4, atol=1e-6)


def test_bf16_autocast_is_close() -> None:
    exact = TokenObjective(bert(0), bert(1), MIXED, autocast=False)(batch(), [1.0, 1.0])[0]
    near = TokenObjective(bert(0), bert(1), MIXED, autocast=True)(batch(), [1.0, 1.0])[0]
    assert near.dtype == torch.float32
    assert near.item() == pytest.approx(exact.item(), rel=0.03)
    near.backward()


def test_a_model_without_a_vocabulary_is_refused() -> None:
    with pytest.raises(ModelError, match="BertForSequenceClassification has no linear output layer over the"):
        TokenObjective(bert_classifier(), None, ALONE, autocast=False)


def test_a_model_that_works_on_its_logits_is_refused() -> None:
    model, after = bert(), nn.Linear(8, 16)
    head = model.cls.predictions
    head.forward = lambda hidden: after(head.decoder(head.transform(hidden)))
    objective = TokenObjective(model, None, ALONE, autocast=False)
    with pytest.raises(ModelError, match="BertForMaskedLM does something after its output layer"):
        objective(batch(), [1.0])


def test_classification_mixes_cross_entropy_and_kl_over_every_sequence() -> None:
    student, teacher = bert_classifier(0), bert_classifier(1)
    inputs = {**batch(), "labels": torch.tensor([2, 0])}
    tokens = {key: value for key, value in inputs.items() if key != "labels"}
    z, u = student(**tokens).logits.double(), teacher(**tokens).logits.double()
    task = F.cross_entropy(z, inputs["labels"], reduction="sum")
    kl = 4 * F.kl_div(torch.log_softmax(z / 2, 1), torch.softmax(u / 2, 1), reduction="sum")
    objective = SequenceObjective(student, teacher, MIXED, autocast=False)
    assert objective.counts(inputs).tolist() == [2, 2]
    loss, sums, logits_BC = objective(inputs, [1 / 2, 1 / 2])
    assert sums.tolist() == pytest.approx([task.item(), kl.item()], rel=1e-5)
    assert loss.item() == pytest.approx(task.item() / 4 + kl.item() / 4, rel=1e-5)
    torch.testing.assert_close(logits_BC.double(), z.detach(), rtol=1e-5, atol=1e-6)
    assert not logits_BC.requires_grad


def test_the_weight_of_an_evaluation_batch_is_not_handed_to_the_model() -> None:
    inputs = {**batch(), "weight": torch.ones(2)}
    loss, _, _ = TokenObjective(bert(), None, ALONE, autocast=False)(inputs, [1 / 3])
    assert loss.item() == pytest.approx(bert()(**batch()).loss.item(), rel=1e-5)
