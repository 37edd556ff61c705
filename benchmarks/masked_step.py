"""What holding a constant mask costs per training step: dense, our gradient hook, and ``torch.nn.utils.prune``.

A step is forward, backward and AdamW, fp32, 90% of the encoder's linear weights removed. ``zero2`` is DeepSpeed's ZeRO-2 on one rank: there one
engine is measured with its gradients held and let through. Run: ``python -m benchmarks.masked_step [--turns N] [--zero2]``.
"""

import argparse
from collections.abc import Callable

import torch
from torch.nn.utils import prune

from benchmarks.shapes import VOCABULARY, encoder, prunable
from benchmarks.timing import RATIO_HEAD, machine, ratio_row, take_turns
from jobs.enforcement import MaskedWeights
from jobs.ranks import Ranks
from jobs.selection import Scores, count_to_remove, keep_largest
from jobs.shards import shard_view

SPARSITY = 0.9
MODELS = {
    "BERT-base layers (3 x 768)": (3, 768, 12),
    "MiniLM (6 x 384)": (6, 384, 12),
}
ROWS = {"8 x 128 tokens": (8, 128), "32 x 64 tokens": (32, 64)}
ALONE = Ranks(0, 1, torch.device("cpu"))


def main() -> None:
    """Print one Markdown table per model and batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=20)
    arguments = parser.parse_args()
    print(machine())
    for model_name, shape in MODELS.items():
        for rows_name, (sequences, length) in ROWS.items():
            print(f"\n{model_name}, batch {rows_name}, fp32, plain AdamW, {arguments.turns} turns\n\n{RATIO_HEAD}")
            cases = {
                "dense": _plain(shape, sequences, length, ""),
                "dense again": _plain(shape, sequences, length, ""),
                "gradient hook (ours)": _plain(shape, sequences, length, "hook"),
                "torch.nn.utils.prune": _plain(shape, sequences, length, "prune"),
            }
            samples = take_turns(cases, arguments.turns, warm_up=3)
            for name, sample in samples.items():
                print(ratio_row(name, sample, samples["dense"]), flush=True)


def hold(weights: MaskedWeights) -> None:
    """Put masks of ``SPARSITY`` per layer into force."""
    keep = []
    for shard in weights.shards:
        score = Scores(shard.name, shard.index, shard.start, shard.master_L().abs(), shard.replicated)
        keep += keep_largest([score], count_to_remove(SPARSITY, shard.global_numel), weights.ranks)
    weights.set_local(keep)


def _plain(shape: tuple[int, int, int], sequences: int, length: int, held_by: str) -> Callable[[], None]:
    model = encoder(*shape)
    if held_by == "prune":
        for module in model.bert.encoder.modules():
            if isinstance(module, torch.nn.Linear):
                prune.l1_unstructured(module, "weight", SPARSITY)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    if held_by == "hook":
        hold(MaskedWeights(shard_view(prunable(model), optimizer, optimizer, 0), optimizer, ALONE))
    tokens = torch.randint(VOCABULARY, (sequences, length), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(sequences) % 2

    def step() -> None:
        model(input_ids=tokens, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
