"""What one mask update costs, and its parts: against a fused AdamW step over the same weights, on one rank.

The whole update is what ``gradual_magnitude`` does: exactly k chosen in every tensor, masks into master and moments,
hidden values kept and put back (``regrow``), overlap with the mask before. The target grows to 90% over the turns, so
that weights go at every one. Others only choose: ``torch.kthvalue`` or ``torch.sort`` of |w| per layer, then
``|w| > threshold`` (which removes every tie, so not exactly k).
Run: ``python -m benchmarks.mask_update [--turns N] [--layers N] [--others]``.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.masked_step import ALONE, SPARSITY
from benchmarks.shapes import VOCABULARY, encoder, prunable
from benchmarks.timing import RATIO_HEAD, machine, ratio_row, take_turns
from prunus.configs.methods.gradual_magnitude import GradualMagnitude
from prunus.configs.values.patterns import count_to_remove
from prunus.jobs.engine.shards import Shard, shard_view
from prunus.jobs.methods import Start
from prunus.jobs.methods.gradual_magnitude import GradualMagnitudeMethod
from prunus.jobs.sparsity import arithmetic
from prunus.jobs.sparsity.masked_weights import MaskedWeights
from prunus.jobs.sparsity.select_smallest import Scores, keep_largest

STEP = "one AdamW step over these weights"


def main() -> None:
    """Print one Markdown table; ratios are to one AdamW step over these weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--layers", type=int, default=12, help="BERT-base layers of 7.1M prunable weights each")
    parser.add_argument("--others", action="store_true", help="also kthvalue, sort and a training step")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = encoder(arguments.layers, 768, 12)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    step = partial(_step, model, optimizer)
    step()  # so that there are moments to mask
    shards = shard_view(prunable(model), optimizer, optimizer, 0)
    values = [shard.master_L().clone() for shard in shards]  # dense, whatever the updates remove
    keep = _choose(values, shards, whole=False)
    cases: dict[str, Callable[[], object]] = {
        STEP: _adamw(values),
        "choosing, per layer": lambda: _choose(values, shards, whole=False),
        "choosing, globally": lambda: _choose(values, shards, whole=True),
        "mask in place of the one before": partial(_replace, [torch.ones_like(k) for k in keep], keep),
        "zeros into master and moments": partial(_clear, _places(values), keep),
        "whole update, regrow: false": _update(values, arguments.turns, regrow=False),
        "whole update, regrow: true": _update(values, arguments.turns, regrow=True),
    }
    if arguments.others:
        cases |= {
            "kthvalue per layer, choosing": lambda: [_by_kthvalue(value_L) for value_L in values],
            "sort per layer, choosing": lambda: [_by_sort(value_L) for value_L in values],
            "training step of 8 x 128 tokens": step,
        }
    samples = take_turns(cases, arguments.turns)
    numel = sum(value_L.numel() for value_L in values)
    print(f"{machine()}\n\n{numel / 1e6:.1f}M prunable weights, fp32, {arguments.turns} turns\n\n{RATIO_HEAD}")
    for name, sample in samples.items():
        print(ratio_row(name, sample, samples[STEP]))


def _choose(values: list[torch.Tensor], shards: list[Shard], whole: bool) -> list[torch.Tensor]:
    scores = [
        Scores(shard.name, shard.index, shard.start, value_L, shard.replicated)
        for shard, value_L in zip(shards, values, strict=True)
    ]
    pools = [scores] if whole else [[score] for score in scores]
    keep: list[torch.Tensor] = []
    for pool in pools:
        numel = sum(score.values_L.numel() for score in pool)
        keep += keep_largest(pool, count_to_remove(SPARSITY, numel), ALONE)
    return keep


def _update(values: list[torch.Tensor], turns: int, regrow: bool) -> Callable[[], object]:
    """The method's update of weights that have moments; each call removes a little more."""
    own = {f"w{i}": torch.nn.Parameter(value_L.clone()) for i, value_L in enumerate(values)}
    optimizer = torch.optim.AdamW(own.values(), lr=1e-4, fused=True)
    for weight in own.values():
        weight.grad = torch.randn_like(weight) * 1e-3
    optimizer.step()
    optimizer.zero_grad()
    weights = MaskedWeights(shard_view(own, optimizer, optimizer, 0), optimizer, ALONE)
    spec = GradualMagnitude(final_sparsity=SPARSITY, regrow=regrow)
    method = GradualMagnitudeMethod(spec)
    method.attach(Start(weights, 100, ALONE, None))
    targets = iter([SPARSITY - 0.1 * (turns - turn) / turns for turn in range(turns + 1)])  # the first one warms up
    return lambda: method._update(next(targets))


def _places(values: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    return [[value_L.clone() for _ in range(3)] for value_L in values]


def _clear(places: list[list[torch.Tensor]], keep: list[torch.Tensor]) -> None:
    for of_weight, keep_L in zip(places, keep, strict=True):
        arithmetic.clear(of_weight, keep_L)


def _replace(own: list[torch.Tensor], keep: list[torch.Tensor]) -> None:
    for mask_L, keep_L in zip(own, keep, strict=True):
        arithmetic.replace(mask_L, keep_L)


def _adamw(values: list[torch.Tensor]) -> Callable[[], object]:
    """A fused optimizer step over weights of the same shapes, and nothing else."""
    own = [torch.nn.Parameter(value_L.clone()) for value_L in values]
    for weight in own:
        weight.grad = torch.randn_like(weight) * 1e-3
    return torch.optim.AdamW(own, lr=1e-4, fused=True).step


def _by_kthvalue(value_L: torch.Tensor) -> torch.Tensor:
    score_L = value_L.abs()
    return score_L > score_L.kthvalue(count_to_remove(SPARSITY, score_L.numel())).values


def _by_sort(value_L: torch.Tensor) -> torch.Tensor:
    score_L = value_L.abs()
    return score_L > score_L.sort().values[count_to_remove(SPARSITY, score_L.numel()) - 1]


def _step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    tokens = torch.randint(VOCABULARY, (8, 128), generator=torch.Generator().manual_seed(0))
    model(input_ids=tokens, labels=torch.arange(8) % 2).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


if __name__ == "__main__":
    main()
