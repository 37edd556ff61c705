"""Peak memory of masked training against dense training: bytes per prunable weight, beside the 16 of dense training.

One case is one process: it makes model and optimizer, takes three steps with a mask update before each where the
method has them, and reports the growth of the peak of its resident set (VmHWM). ``torch.nn.utils.prune`` holds a mask
of floats and a second copy of the weights. Run: ``python -m benchmarks.memory [--layers N] [--json FILE]``.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import prune

from benchmarks.masked_step import ALONE, SPARSITY, hold
from benchmarks.shapes import VOCABULARY, encoder, prunable
from benchmarks.timing import machine, peak_over
from prunus.configs.methods.gradual_magnitude import GradualMagnitude
from prunus.jobs.engine.shards import shard_view
from prunus.jobs.methods import Start
from prunus.jobs.methods.gradual_magnitude import GradualMagnitudeMethod
from prunus.jobs.sparsity.masked_weights import MaskedWeights

CASES = ("dense", "held mask (ours)", "updates, regrow: false", "updates, regrow: true", "torch.nn.utils.prune")


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=6, help="BERT-base layers of 7.1M prunable weights each")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", choices=CASES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.case:
        print(json.dumps(_measure(arguments.case, arguments.layers)))
        return
    print(f"{machine()}\n\n| case | peak, MB | over dense, bytes per prunable weight |\n|---|---|---|")
    figures: dict[str, Any] = {"machine": machine()}
    for case in CASES:
        found = [_in_a_process(case, arguments.layers) for _ in range(2)]
        figures[case] = best = min(found, key=lambda one: one["peak"])
        over = (best["peak"] - figures["dense"]["peak"]) / best["num_weights"]
        print(f"| {case} | {best['peak'] / 1e6:.0f} | {over:+.2f} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def _measure(case: str, num_layers: int) -> dict[str, int]:
    num_weights = sum(weight.numel() for weight in prunable(encoder(1, 768, 12)).values()) * num_layers
    return {"peak": peak_over(lambda: _train(case, num_layers)), "num_weights": num_weights}


def _train(case: str, num_layers: int) -> None:
    model = encoder(num_layers, 768, 12)
    if case == CASES[-1]:
        for module in model.bert.encoder.modules():
            if isinstance(module, torch.nn.Linear):
                prune.l1_unstructured(module, "weight", SPARSITY)  # type: ignore[no-untyped-call]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    method = None
    if case in CASES[1:4]:
        weights = MaskedWeights(shard_view(prunable(model), optimizer, optimizer, 0), optimizer, ALONE)
        if case == CASES[1]:
            hold(weights)
        else:
            spec = GradualMagnitude(final_sparsity=SPARSITY, regrow=case == CASES[3])
            method = GradualMagnitudeMethod(spec)
            method.attach(Start(weights, 100, ALONE, None))
    tokens = torch.randint(VOCABULARY, (1, 32), generator=torch.Generator().manual_seed(0))
    for step in range(3):
        if method is not None:
            method._update(SPARSITY * (step + 1) / 3)
        model(input_ids=tokens, labels=torch.zeros(1, dtype=torch.int64)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def _in_a_process(case: str, num_layers: int) -> dict[str, int]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", "--case", case, "--layers", str(num_layers)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
