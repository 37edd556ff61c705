"""The chunked loss against plain autograd over whole logits (no code shared), in values and in every gradient."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch.nn import functional as F

from prunus.jobs.objectives.projection_loss import Mix, Projection, projection_loss, whole_loss

S, V, H, K = 13, 29, 8, 6
MIX = Mix(task_scale=0.3, teacher_scale=0.07, temperature=2.0, chunk_rows=4)


@dataclass
class Case:
    hidden_SH: torch.Tensor
    weight_VH: torch.Tensor
    bias_V: torch.Tensor | None
    labels_S: torch.Tensor
    teacher_SK: torch.Tensor
    teacher: Projection
    distilled_S: torch.Tensor

    @property
    def leaves(self) -> list[torch.Tensor]:
        return [t for t in (self.hidden_SH, self.weight_VH, self.bias_V) if t is not None]


def make(dtype: torch.dtype = torch.float32, bias: bool = True) -> Case:
    generator = torch.Generator().manual_seed(11)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    labels_S = torch.randint(V, (S,), generator=generator)
    labels_S[torch.arange(S) % 3 != 0] = -100
    distilled_S = torch.arange(S) < 10  # the last three rows are padding
    labels_S[~distilled_S] = -100
    weight_VH, bias_V = draw(V, H).requires_grad_(), draw(V).requires_grad_() if bias else None
    teacher = Projection(draw(V, K), draw(V))
    return Case(draw(S, H).requires_grad_(), weight_VH, bias_V, labels_S, draw(S, K), teacher, distilled_S)


def whole(case: Case, mix: Mix) -> torch.Tensor:
    """What the module says it computes, over all logits at once, in fp64, differentiated by autograd."""
    bias_V = None if case.bias_V is None else case.bias_V.double()
    logits_SV = F.linear(case.hidden_SH.double(), case.weight_VH.double(), bias_V)
    teacher_SV = F.linear(case.teacher_SK.double(), case.teacher.weight_VH.double(), case.teacher.bias_V.double())
    task = F.cross_entropy(logits_SV, case.labels_S, ignore_index=-100, reduction="sum")
    p_SV = torch.softmax(teacher_SV / mix.temperature, 1)
    q_SV = torch.softmax(logits_SV / mix.temperature, 1)
    kl_S = (p_SV * (p_SV.log() - q_SV.log())).sum(1)
    teacher = mix.temperature**2 * kl_S[case.distilled_S].sum()
    return mix.task_scale * task + mix.teacher_scale * teacher


def chunked(case: Case, mix: Mix, distil: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    student = Projection(case.weight_VH, case.bias_V)
    extra = (case.teacher_SK, case.teacher, case.distilled_S) if distil else ()
    return projection_loss(case.hidden_SH, student, case.labels_S, mix, *extra)


def assert_same_as_whole(case: Case, mix: Mix, distil: bool = True) -> None:
    loss, _ = chunked(case, mix, distil)
    expected = whole(case, mix)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for own, theirs in zip(
        torch.autograd.grad(loss, case.leaves), torch.autograd.grad(expected, case.leaves), strict=True
    ):
        torch.testing.assert_close(own, theirs.to(own.dtype), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("chunk_rows", [1, 4, 13, 1000])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
def test_value_and_gradients_are_those_of_whole_logits(chunk_rows: int, temperature: float) -> None:
    assert_same_as_whole(make(), replace(MIX, chunk_rows=chunk_rows, temperature=temperature))


def test_without_a_bias() -> None:
    assert_same_as_whole(make(bias=False), MIX)


def test_cross_entropy_alone() -> None:
    assert_same_as_whole(make(), replace(MIX, teacher_scale=0.0), distil=False)


def test_distillation_alone() -> None:
    assert_same_as_whole(make(), replace(MIX, task_scale=0.0))


def test_the_curve_of_the_task_is_there_even_where_it_weighs_nothing() -> None:
    case = make()
    _, sums = chunked(case, replace(MIX, task_scale=0.0))
    task = whole(case, replace(MIX, task_scale=1.0, teacher_scale=0.0))
    assert sums[0].item() == pytest.approx(task.item(), rel=1e-5)


def test_sums_are_unscaled() -> None:
    case = make()
    _, sums = chunked(case, MIX)
    task = whole(case, replace(MIX, task_scale=1.0, teacher_scale=0.0))
    teacher = whole(case, replace(MIX, task_scale=0.0, teacher_scale=1.0))
    assert sums.tolist() == pytest.approx([task.item(), teacher.item()], rel=1e-5)
    assert not sums.requires_grad


def test_a_row_by_hand() -> None:
    # logits (0, ln 3): softmax (1/4, 3/4), label 0: ln 4; its gradient to the bias: (1/4 - 1, 3/4)
    bias_V = torch.tensor([0.0, math.log(3.0)], requires_grad=True)
    hidden_SH, weight_VH = torch.zeros(1, 1, requires_grad=True), torch.zeros(2, 1, requires_grad=True)
    loss, _ = projection_loss(hidden_SH, Projection(weight_VH, bias_V), torch.tensor([0]), Mix(1.0, 0.0, 1.0, 8))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(4.0))
    assert bias_V.grad is not None
    assert bias_V.grad.tolist() == pytest.approx([-0.75, 0.75])


def test_padding_rows_neither_count_nor_get_a_gradient() -> None:
    case = make()
    loss, sums = chunked(case, MIX)
    loss.backward()
    assert case.hidden_SH.grad is not None
    assert torch.count_nonzero(case.hidden_SH.grad[10:]) == 0
    assert torch.count_nonzero(case.hidden_SH.grad[:10].abs().sum(1)) == 10
    case.teacher_SK[10:] = 1e3
    assert chunked(case, MIX)[1].tolist() == sums.tolist()


def test_a_teacher_equal_to_the_student_costs_nothing_and_teaches_nothing() -> None:
    case = make()
    teacher = Projection(case.weight_VH.detach(), None if case.bias_V is None else case.bias_V.detach())
    mix = replace(MIX, task_scale=0.0)
    loss, _ = projection_loss(
        case.hidden_SH, Projection(case.weight_VH, case.bias_V), case.labels_S, mix, case.hidden_SH.detach(), teacher,
        case.distilled_S,
    )  # fmt: skip
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert case.weight_VH.grad is not None
    assert case.weight_VH.grad.abs().max() < 1e-5


def test_no_row_gives_zero_and_zero_gradients() -> None:
    case = make()
    none = replace(case, labels_S=torch.full((S,), -100), distilled_S=torch.zeros(S, dtype=torch.bool))
    loss, _ = chunked(none, MIX)
    loss.backward()
    assert loss.item() == 0.0
    assert all(leaf.grad is not None and torch.count_nonzero(leaf.grad) == 0 for leaf in none.leaves)
    empty = projection_loss(case.hidden_SH[:0], Projection(case.weight_VH, case.bias_V), case.labels_S[:0], MIX)
    assert empty[0].item() == 0.0


def test_the_gradient_is_scaled_with_what_comes_from_above() -> None:
    case = make()
    once = torch.autograd.grad(chunked(case, MIX)[0], case.leaves)
    thrice = torch.autograd.grad(3.0 * chunked(case, MIX)[0], case.leaves)
    for one, three in zip(once, thrice, strict=True):
        torch.testing.assert_close(three, 3.0 * one)


def test_a_tied_weight_gets_the_gradients_of_both_its_uses() -> None:
    """Embedding and projection are one tensor, as in BERT."""
    case = make(bias=False)
    ids = torch.arange(S) % V

    def gradient(use: str) -> torch.Tensor:
        weight_VH = case.weight_VH.detach().clone().requires_grad_()
        tied = replace(case, weight_VH=weight_VH, hidden_SH=torch.tanh(weight_VH[ids]))
        loss = chunked(tied, MIX)[0] if use == "chunked" else whole(tied, MIX)
        return torch.autograd.grad(loss, weight_VH)[0].float()

    torch.testing.assert_close(gradient("chunked"), gradient("whole"), rtol=1e-4, atol=1e-6)


def test_bf16_is_close_and_its_gradients_keep_their_types() -> None:
    case = make(torch.bfloat16)
    loss, _ = chunked(case, MIX)
    expected = whole(case, MIX)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)
    own = torch.autograd.grad(loss, case.leaves)
    theirs = torch.autograd.grad(expected, case.leaves)
    for mine, right in zip(own, theirs, strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine - right).norm() < 0.03 * right.norm()


def test_bf16_rows_over_an_fp32_weight_give_an_fp32_gradient() -> None:
    case = make()
    mixed = replace(case, hidden_SH=case.hidden_SH.detach().bfloat16().requires_grad_())
    grads = torch.autograd.grad(chunked(mixed, MIX)[0], mixed.leaves)
    assert [g.dtype for g in grads] == [torch.bfloat16, torch.float32, torch.float32]


def test_evaluation_builds_no_gradient() -> None:
    case = make()
    with torch.no_grad():
        loss, sums = chunked(case, MIX)
    assert not loss.requires_grad
    assert sums[0].item() == pytest.approx(chunked(case, MIX)[1][0].item())


def test_classification_is_the_same_formula_on_logits_that_exist() -> None:
    case = make()
    every = replace(case, distilled_S=torch.ones(S, dtype=torch.bool))
    logits_SV = F.linear(case.hidden_SH, case.weight_VH, case.bias_V)
    teacher_SV = F.linear(case.teacher_SK, case.teacher.weight_VH, case.teacher.bias_V)
    loss, sums = whole_loss(logits_SV, case.labels_S, MIX, teacher_SV)
    expected = whole(every, MIX)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert sums[0].item() * MIX.task_scale + sums[1].item() * MIX.teacher_scale == pytest.approx(loss.item(), rel=1e-5)
    own, theirs = (torch.autograd.grad(x, case.weight_VH)[0] for x in (loss, expected))
    torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-6)
