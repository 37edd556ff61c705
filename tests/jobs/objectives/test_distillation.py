"""Hidden-state distillation against mean squared errors written out here, over states that transformers gives."""

import pytest
import torch
from transformers import PreTrainedModel

from prunus.configs.specs.distillation import HiddenStates
from prunus.jobs.errors import ModelError
from prunus.jobs.objectives.base import Term, Weights
from prunus.jobs.objectives.distillation import HiddenMatch, uniform_pairs
from prunus.jobs.objectives.sequences import SequenceObjective
from prunus.jobs.objectives.tokens import TokenObjective
from tests.jobs.tiny import batch, bert, bert_classifier

MIXED = Weights(task=0.5, teacher=0.25, temperature=2.0, predicted_only=False, chunk_rows=3)
NO_LOGITS = Weights(task=0.5, teacher=0.0, temperature=1.0, predicted_only=False, chunk_rows=3)


def states_of(model: PreTrainedModel) -> tuple[torch.Tensor, ...]:
    inputs = {key: value for key, value in batch().items() if key != "labels"}
    with torch.no_grad():
        found: tuple[torch.Tensor, ...] = model(**inputs, output_hidden_states=True).hidden_states
    return found


def expected_sum(student: PreTrainedModel, teacher: PreTrainedModel, pairs: list[tuple[int, int]]) -> float:
    """Token by token and layer by layer."""
    ours, theirs = states_of(student), states_of(teacher)
    total = 0.0
    for i, j in pairs:
        for row, attended in enumerate(batch()["attention_mask"].tolist()):
            for token, counts in enumerate(attended):
                difference = ours[i][row, token].double() - theirs[j][row, token].double()
                total += counts * float((difference**2).mean())
    return total / len(pairs)


@pytest.mark.parametrize(
    ("student", "teacher", "pairs"),
    [
        (4, 12, ((1, 3), (2, 6), (3, 9), (4, 12))),
        (6, 6, ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6))),
        (4, 6, ((1, 2), (2, 3), (3, 5), (4, 6))),
        (2, 1, ((1, 1), (2, 1))),
    ],
)
def test_layers_are_matched_at_the_same_depth(student: int, teacher: int, pairs: tuple[tuple[int, int], ...]) -> None:
    assert uniform_pairs(student, teacher) == pairs


def test_the_term_is_the_mean_squared_error_over_attended_tokens_and_matched_layers() -> None:
    student, teacher = bert(0).eval(), bert(1).eval()
    expected = expected_sum(student, teacher, [(1, 1), (2, 2)])
    hidden = HiddenMatch(HiddenStates(weight=3.0), student, teacher)
    objective = TokenObjective(student, teacher, MIXED, autocast=False, hidden=hidden)
    objective.train()
    assert objective.terms == (Term("task", 0.5), Term("teacher", 0.25), Term("hidden", 3.0))
    assert objective.counts(batch()).tolist() == [3, 10, 10]
    without = TokenObjective(bert(0), bert(1), MIXED, autocast=False)
    loss, sums, _ = objective(batch(), [1 / 3, 1 / 10, 1 / 10])
    other, other_sums, _ = without(batch(), [1 / 3, 1 / 10])
    assert sums.tolist() == pytest.approx([*other_sums.tolist(), expected], rel=1e-5)
    assert loss.item() == pytest.approx(other.item() + 3.0 * expected / 10, rel=1e-5)
    loss.backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_given_pairs_may_name_the_embeddings_and_need_no_logits() -> None:
    student, teacher = bert(0).eval(), bert(1).eval()
    expected = expected_sum(student, teacher, [(0, 0), (2, 1)])
    hidden = HiddenMatch(HiddenStates(layers=((0, 0), (2, 1))), student, teacher)
    objective = TokenObjective(student, teacher, NO_LOGITS, autocast=False, hidden=hidden).train()
    assert [term.name for term in objective.terms] == ["task", "hidden"]
    _, sums, _ = objective(batch(), [1.0, 1.0])
    assert sums[1].item() == pytest.approx(expected, rel=1e-5)


def test_a_classifier_matches_hidden_states_too() -> None:
    student, teacher = bert_classifier(0).eval(), bert_classifier(1).eval()
    expected = expected_sum(student, teacher, [(1, 1), (2, 2)])
    hidden = HiddenMatch(HiddenStates(), student, teacher)
    objective = SequenceObjective(student, teacher, MIXED, autocast=False, hidden=hidden).train()
    _, sums, _ = objective({**batch(), "labels": torch.tensor([2, 0])}, [0.5, 0.5, 0.1])
    assert sums[2].item() == pytest.approx(expected, rel=1e-5)


def test_an_evaluation_asks_no_teacher() -> None:
    student, teacher = bert(0), bert(1)
    hidden = HiddenMatch(HiddenStates(), student, teacher)
    objective = TokenObjective(student, teacher, MIXED, autocast=False, hidden=hidden).eval()
    teacher.bert.forward = None  # calling it would fail
    _, sums, _ = objective(batch(), objective.only_task)
    assert sums[2].item() == 0.0


def test_a_projection_bridges_sizes_learns_and_begins_without_a_draw() -> None:
    student, teacher = bert(0), bert(1)
    projected = HiddenMatch(HiddenStates(projection="always"), student, teacher)
    plain = HiddenMatch(HiddenStates(), student, teacher)
    assert plain.projection is None
    assert projected.projection is not None
    ours, theirs = states_of(student), states_of(teacher)
    attended = batch()["attention_mask"]
    assert projected(ours, theirs, attended).item() == pytest.approx(plain(ours, theirs, attended).item(), rel=1e-6)
    objective = TokenObjective(student, teacher, MIXED, autocast=False, hidden=projected).train()
    objective(batch(), [1.0, 1.0, 1.0])[0].backward()
    assert projected.projection.weight.grad is not None and projected.projection.weight.grad.any()
    assert not any("projection" in name for name, _ in student.named_parameters())
    smaller = torch.randn(2, 6, 5)
    student.config.hidden_size = 5
    bridge = HiddenMatch(HiddenStates(layers=((1, 1),)), student, teacher)
    assert bridge.projection is not None and tuple(bridge.projection.weight.shape) == (8, 5)
    padded = torch.nn.functional.pad(smaller, (0, 3))
    assert bridge([smaller] * 3, theirs, attended).item() == pytest.approx(
        float((((padded - theirs[1]) ** 2).mean(2) * attended).sum()), rel=1e-5
    )


def test_a_layer_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ModelError, match=r"the pair \[3, 1\] is beyond the student's 2 or the teacher's 2 layers"):
        HiddenMatch(HiddenStates(layers=((3, 1),)), bert(0), bert(1))
