"""Choosing exactly the k smallest of one pool: ours against what is usually called, and over several ranks.

Every case gives a mask of the pool, one bool per weight. Only ours removes exactly k where weights are equal: the
others remove every weight that equals the k-th (``global_unstructured`` picks k by itself). Memory is the growth of the
resident set over the weights, the mask included. Ranks share the pool in equal runs, as under ZeRO; they are processes
with gloo on this machine, one thread each, and the bytes are those handed to collectives. With a GPU, the first part
runs on it. Run: ``python -m benchmarks.selection [--millions 85 300] [--turns N] [--ranks 2 4] [--json FILE]``.
"""

import argparse
import json
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.utils import prune

from benchmarks.timing import RATIO_HEAD, Samples, machine, peak_over, ratio_row, take_turns
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.select_smallest import Scores, keep_largest

SPARSITY = 0.9
OURS = "ours (exactly k)"
PARTITION = "numpy.partition"


def main() -> None:
    """Print Markdown tables, and write the figures as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, nargs="+", default=[85.0, 300.0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--ranks", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{machine()}; {where}")
    figures: dict[str, Any] = {"machine": machine(), "device": where, "pools": {}}
    for millions in arguments.millions:
        figures["pools"][f"{millions:g}M"] = _pool(int(millions * 1e6), device, arguments.turns, arguments.ranks)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def _pool(numel: int, device: torch.device, turns: int, rank_counts: list[int]) -> dict[str, Any]:
    weights = _weights(numel).to(device)
    cases = _cases(weights)
    samples = take_turns(cases, turns, warm_up=1 if numel < 1e8 else 0)
    base = PARTITION if device.type == "cpu" else "torch.topk"
    print(f"\n{numel / 1e6:g}M weights, {turns} turns; ratios to {base}\n\n{RATIO_HEAD[:-3]}|---|")
    figures: dict[str, Any] = {}
    for name, sample in samples.items():
        grown = peak_over(cases[name], device)
        share = grown / (4 * numel)
        print(f"{ratio_row(name, sample, samples[base])} {share:.2f} |", flush=True)
        figures[name] = {**_seconds(sample), "memory_to_weights": share}
    if rank_counts and device.type == "cpu":
        print(
            "\n| case | ranks | wall, ms | CPU of the busiest rank, ms | bytes to collectives, each rank |\n"
            + "|---" * 5
            + "|"
        )
        for count in (1, *rank_counts):
            for name in ("ours", "gather to rank 0 + kthvalue"):
                found = _over_ranks(name, numel, count, turns)
                row = f"| {name} | {count} | {found['wall_s'] * 1e3:.0f} | {found['cpu_s'] * 1e3:.0f} |"
                print(f"{row} {found['bytes']:,} |", flush=True)
                figures[f"{name}, {count} ranks"] = found
    return figures


def _weights(numel: int) -> torch.Tensor:
    return torch.randn(numel, generator=torch.Generator().manual_seed(0)) * 0.02


def _cases(weights_N: torch.Tensor) -> dict[str, Callable[[], object]]:
    num_remove = int(SPARSITY * weights_N.numel())
    module = torch.nn.Linear(1, 1, bias=False, device=weights_N.device)
    module.weight = torch.nn.Parameter(weights_N.view(1, -1), requires_grad=False)
    alone = Ranks(0, 1, weights_N.device)

    def unstructured() -> object:
        prune.global_unstructured([(module, "weight")], prune.L1Unstructured, amount=num_remove)  # type: ignore[no-untyped-call]
        mask = module.weight_mask
        prune.remove(module, "weight")  # type: ignore[no-untyped-call]
        module.weight = torch.nn.Parameter(weights_N.view(1, -1), requires_grad=False)
        return mask

    def partition() -> object:
        scores_N = weights_N.abs().numpy()
        return scores_N > np.partition(scores_N, num_remove - 1)[num_remove - 1]

    def kthvalue() -> object:
        scores_N = weights_N.abs()
        return scores_N > scores_N.kthvalue(num_remove).values

    def topk() -> object:
        scores_N = weights_N.abs()
        return torch.zeros_like(scores_N, dtype=torch.bool).index_fill_(
            0, scores_N.topk(scores_N.numel() - num_remove, sorted=False).indices, True
        )

    def sort() -> object:
        scores_N = weights_N.abs()
        return scores_N > scores_N.sort().values[num_remove - 1]

    cases: dict[str, Callable[[], object]] = {
        OURS: lambda: keep_largest([Scores("w", 0, 0, weights_N, replicated=True)], num_remove, alone),
        PARTITION: partition,
        "torch.kthvalue": kthvalue,
        "torch.topk": topk,
        "torch.sort": sort,
        "prune.global_unstructured": unstructured,
    }
    if weights_N.device.type == "cuda":
        del cases[PARTITION]
        return {name: _waited(case) for name, case in cases.items()}
    return cases


def _waited(case: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        result = case()
        torch.cuda.synchronize()
        return result

    return run


def _seconds(sample: Samples) -> dict[str, list[float]]:
    return {"wall_s": sample.wall_s, "cpu_s": sample.cpu_s}


@dataclass(frozen=True)
class CountingRanks(Ranks):
    """A gang that counts the bytes it hands to collectives."""

    seen: list[int] = field(default_factory=list)

    def sum(self, values_N: torch.Tensor) -> torch.Tensor:
        self.seen.append(values_N.numel() * values_N.element_size())
        return super().sum(values_N)

    def gather(self, value: Any) -> list[Any]:
        self.seen.append(len(pickle.dumps(value)))
        return super().gather(value)


def _over_ranks(name: str, numel: int, world_size: int, turns: int) -> dict[str, Any]:
    context = mp.get_context("spawn")
    results = context.Queue()
    file = Path(f"/tmp/prunus-bench-{time.monotonic_ns()}")
    arguments = (name, numel, world_size, turns, file.as_uri(), results)
    processes = [context.Process(target=_rank, args=(rank, *arguments)) for rank in range(world_size)]
    for process in processes:
        process.start()
    found = [results.get(timeout=1800) for _ in processes]
    for process in processes:
        process.join()
    file.unlink(missing_ok=True)
    return {"wall_s": max(f[0] for f in found), "cpu_s": max(f[1] for f in found), "bytes": max(f[2] for f in found)}


def _rank(rank: int, name: str, numel: int, world_size: int, turns: int, meet: str, results: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=world_size)
    size = -(-numel // world_size)
    start = rank * size
    own_L = _weights(numel)[start : start + size].clone()
    num_remove = int(SPARSITY * numel)
    times = []
    for _ in range(turns + 1):
        ranks = CountingRanks(rank, world_size, torch.device("cpu"))
        dist.barrier()
        wall, cpu = time.perf_counter(), time.process_time()
        if name == "ours":
            keep_largest([Scores("w", 0, start, own_L, replicated=False)], num_remove, ranks)
        else:
            _gather_and_kthvalue(own_L, num_remove, ranks)
        cpu = time.process_time() - cpu
        dist.barrier()
        times.append((time.perf_counter() - wall, cpu, sum(ranks.seen)))
    results.put(min(times[1:]))  # the first one warms up
    dist.destroy_process_group()


def _gather_and_kthvalue(own_L: torch.Tensor, num_remove: int, ranks: CountingRanks) -> torch.Tensor:
    parts = [torch.empty_like(own_L) for _ in range(ranks.world_size)] if ranks.is_main else None
    ranks.seen.append(own_L.numel() * own_L.element_size())
    dist.gather(own_L, parts)
    threshold = torch.cat(parts).abs().kthvalue(num_remove).values if parts else torch.zeros(())
    dist.broadcast(threshold, 0)
    return own_L.abs() > threshold


if __name__ == "__main__":
    main()
