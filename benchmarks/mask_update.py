"""What one mask update costs: ours per layer and over the whole pool, against what is usually published, on one rank.

Ours is what ``gradual_magnitude`` does at an update: scores, selection of exactly k, hidden values kept and put back
(``regrow``), masks into master and moments, and the checks that follow. The others only choose: ``torch.kthvalue`` or
``torch.sort`` of |w| per layer, then ``|w| > threshold`` (which removes every tie, so not exactly k). A pass over the
weights is ``|w|`` written anew. Run: ``python -m benchmarks.mask_update [--turns N] [--layers N]``.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.masked_step import ALONE, SPARSITY
from benchmarks.shapes import VOCABULARY, encoder, prunable
from benchmarks.timing import RATIO_HEAD, machine, ratio_row, take_turns
from configs.methods import GradualMagnitude
from configs.patterns import count_to_remove
from jobs.enforcement import MaskedWeights
from jobs.methods import Start
from jobs.methods.gradual_magnitude import GradualMagnitudeMethod
from jobs.selection import Scores, keep_largest
from jobs.shards import shard_view


def main() -> None:
    """Print one Markdown table; ratios are to one pass over the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--layers", type=int, default=12, help="BERT-base layers of 7.1M prunable weights each")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = encoder(arguments.layers, 768, 12)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    step = partial(_step, model, optimizer)
    step()  # so that there are moments to mask
    weights = MaskedWeights(shard_view(prunable(model), optimizer, optimizer, 0), optimizer, ALONE)
    values = [shard.master_L().clone() for shard in weights.shards]  # dense, whatever the updates remove
    method = GradualMagnitudeMethod(GradualMagnitude(final_sparsity=SPARSITY), Start(weights, 100, ALONE, None))
    cases: dict[str, Callable[[], object]] = {
        "one pass": lambda: [value_L.abs() for value_L in values],
        "ours per layer, choosing": lambda: _choose(values, weights, whole=False),
        "ours global, choosing": lambda: _choose(values, weights, whole=True),
        "ours per layer, whole update": lambda: method._update(SPARSITY),
        "kthvalue per layer, choosing": lambda: [_by_kthvalue(value_L) for value_L in values],
        "sort per layer, choosing": lambda: [_by_sort(value_L) for value_L in values],
        "one AdamW step over these weights": _adamw(values),
        "training step of 8 x 128 tokens": step,
    }
    samples = take_turns(cases, arguments.turns)
    print(f"{machine()}\n\n{weights.num_weights / 1e6:.1f}M prunable weights, fp32, {arguments.turns} turns\n")
    print(RATIO_HEAD)
    for name, sample in samples.items():
        print(ratio_row(name, sample, samples["one pass"]))


def _choose(values: list[torch.Tensor], weights: MaskedWeights, whole: bool) -> list[torch.Tensor]:
    scores = [
        Scores(shard.name, shard.index, shard.start, value_L.abs(), shard.replicated)
        for shard, value_L in zip(weights.shards, values, strict=True)
    ]
    pools = [scores] if whole else [[score] for score in scores]
    keep: list[torch.Tensor] = []
    for pool in pools:
        numel = sum(score.values_L.numel() for score in pool)
        keep += keep_largest(pool, count_to_remove(SPARSITY, numel), weights.ranks)
    return keep


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
