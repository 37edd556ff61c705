"""What holding a constant mask costs per training step: dense, our gradient hook, and ``torch.nn.utils.prune``.

A step is forward, backward and AdamW, fp32, 90% of the encoder's linear weights removed. Every case has a model of
its own, the same weights and batch; all take turns in one process, one torch thread, so that CPU time is the work and
nothing else. AdamW comes in two implementations, ``loop`` (torch's default on a CPU) and ``fused``: on a CPU with MKL
the loop's square root is several times slower on exact zeros, and a held mask makes 90% of the second moments exact
zeros. Run: ``python -m benchmarks.masked_step [--turns N] [--zero2] [--model N]``.
"""

import argparse
import os
from collections.abc import Callable

import deepspeed
import torch
import torch.distributed as dist
from torch.nn.utils import prune

from benchmarks.shapes import VOCABULARY, encoder, prunable
from benchmarks.timing import RATIO_HEAD, machine, ratio_row, take_turns
from prunus.configs.values.patterns import count_to_remove
from prunus.jobs.engine.shards import shard_view
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.masked_weights import MaskedWeights
from prunus.jobs.sparsity.select_smallest import Scores, keep_largest

SPARSITY = 0.9
MODELS = {"BERT-base layers (2 x 768)": (2, 768, 12), "MiniLM (6 x 384)": (6, 384, 12)}
SEQUENCES, LENGTH = 8, 128
ALONE = Ranks(0, 1, torch.device("cpu"))
Step = Callable[[], None]
Shape = tuple[int, int, int]


def main() -> None:
    """Print one Markdown table per model and engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--zero2", action="store_true", help="DeepSpeed ZeRO-2 on one rank instead of plain AdamW")
    parser.add_argument("--model", type=int, choices=(0, 1), help="only this one of the models")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    for place, (name, shape) in enumerate(MODELS.items()):
        if arguments.model not in {None, place}:
            continue
        cases = _zero2_cases(shape) if arguments.zero2 else _plain_cases(shape)
        samples = take_turns(cases, arguments.turns, warm_up=2)
        where = "ZeRO-2, one rank" if arguments.zero2 else "plain AdamW, as under DDP"
        print(f"\n{name}, {SEQUENCES} x {LENGTH} tokens, {where}, {arguments.turns} turns\n\n{RATIO_HEAD}")
        for case, sample in samples.items():
            print(ratio_row(case, sample, samples[f"{case.split(',')[0]}, dense"]), flush=True)


def hold(weights: MaskedWeights) -> None:
    """Put masks of ``SPARSITY`` per layer into force."""
    keep = []
    for shard in weights.shards:
        score = Scores(shard.name, shard.index, shard.start, shard.master_L().abs(), shard.replicated)
        keep += keep_largest([score], count_to_remove(SPARSITY, shard.global_numel), weights.ranks)
    weights.set_local(keep)


def _plain_cases(shape: Shape) -> dict[str, Step]:
    held = {"dense": "", "gradient hook (ours)": "hook", "torch.nn.utils.prune": "prune"}
    return {
        f"{'fused' if fused else 'loop'}, {name}": _plain(shape, how, fused)
        for fused in (True, False)
        for name, how in held.items()
    }


def _plain(shape: Shape, held_by: str, fused: bool) -> Step:
    model = encoder(*shape)
    if held_by == "prune":
        for module in model.bert.encoder.modules():
            if isinstance(module, torch.nn.Linear):
                prune.l1_unstructured(module, "weight", SPARSITY)  # type: ignore[no-untyped-call]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=fused)
    if held_by == "hook":
        hold(MaskedWeights(shard_view(prunable(model), optimizer, optimizer, 0), optimizer, ALONE))

    def step() -> None:
        _loss(model).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step


def _zero2_cases(shape: Shape) -> dict[str, Step]:
    if not dist.is_initialized():
        Ranks.join()
    return {
        f"{'fused' if fused else 'loop'}, {name}": _zero2(shape, held, fused)
        for fused in (True, False)
        for name, held in {"dense": False, "gradient hook (ours)": True}.items()
    }


def _zero2(shape: Shape, held: bool, fused: bool) -> Step:
    model = encoder(*shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=fused)
    settings = {
        "train_micro_batch_size_per_gpu": SEQUENCES,
        "zero_optimization": {"stage": 2},
        "zero_allow_untested_optimizer": True,
    }
    zero, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    if held:
        hold(MaskedWeights(shard_view(prunable(model), optimizer, zero.optimizer, 0), zero.optimizer, ALONE))

    def step() -> None:
        zero.backward(_loss(zero))
        zero.step()

    return step


def _loss(model: torch.nn.Module) -> torch.Tensor:
    tokens = torch.randint(VOCABULARY, (SEQUENCES, LENGTH), generator=torch.Generator().manual_seed(0))
    loss: torch.Tensor = model(input_ids=tokens, labels=torch.arange(SEQUENCES) % 2).loss
    return loss


if __name__ == "__main__":
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    main()
