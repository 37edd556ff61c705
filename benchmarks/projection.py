"""Distillation over a vocabulary: in chunks of rows, against whole fp32 logits under autograd; time and peak memory.

One case is one process, because the peak of a process never falls: it makes its inputs, notes the resident set, runs
the loss forward and backward ``REPEATS`` times, and reports the growth of the kernel's high-water mark (VmHWM) over
that note: logits, temporaries and gradients, not the weights. Cases take turns. Run: ``python -m
benchmarks.projection [--full]``.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.timing import machine
from prunus.jobs.objectives.projection_loss import Mix, Projection, projection_loss

COLUMNS = ("rows of a chunk", "best, ms", "CPU time, ms", "CPU time to whole", "peak, MB", "peak to whole")
HEAD = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"
REPEATS = 2
TURNS = 2
QUICK = [(30_522, 384, 512, (0, 64, 128, 256, 512)), (250_002, 384, 512, (0, 32, 128, 512))]
FULL = [
    (30_522, 384, 2048, (0, 32, 64, 128, 256, 512)),
    (30_522, 768, 1024, (0, 32, 64, 128, 256, 512)),
    (250_002, 384, 1024, (0, 16, 32, 64, 128, 256)),
    (250_002, 768, 512, (0, 16, 32, 64, 128, 256)),
]


def main() -> None:
    """Print one Markdown table per vocabulary, hidden size and number of rows; chunk 0 is the whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="more shapes and chunk sizes; minutes")
    parser.add_argument("--case", type=int, nargs=4, help="vocabulary, hidden, rows, rows of a chunk (0: whole)")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(*arguments.case)))
        return
    print(machine())
    for vocabulary, hidden, rows, chunks in FULL if arguments.full else QUICK:
        print(f"\nvocabulary {vocabulary}, hidden {hidden} (student and teacher), {rows} rows, all of them distilled\n")
        print(HEAD)
        found: dict[int, list[dict[str, float]]] = {chunk: [] for chunk in chunks}
        for _ in range(TURNS):
            for chunk in chunks:
                found[chunk].append(_in_a_process(vocabulary, hidden, rows, chunk))
        whole = found[0]
        for chunk, of_turn in found.items():
            cpu = statistics.median(one["cpu_s"] for one in of_turn)
            peak = max(one["peak_mb"] for one in of_turn)
            cpu_ratio = cpu / statistics.median(one["cpu_s"] for one in whole)
            peak_ratio = peak / max(one["peak_mb"] for one in whole)
            best_ms = min(one["wall_s"] for one in of_turn) * 1e3
            times = f"{best_ms:.0f} | {cpu * 1e3:.0f} | {cpu_ratio:.2f}"
            print(f"| {chunk or 'whole'} | {times} | {peak:.0f} | {peak_ratio:.2f} |", flush=True)


def measure(vocabulary: int, hidden: int, rows: int, chunk: int) -> dict[str, float]:
    """Best wall and CPU seconds of a forward and backward, and the growth of the peak resident set in MB."""
    torch.manual_seed(0)
    weight_VH = (torch.randn(vocabulary, hidden) * 0.02).requires_grad_()
    bias_V = torch.zeros(vocabulary, requires_grad=True)
    teacher = Projection(torch.randn(vocabulary, hidden) * 0.02, torch.zeros(vocabulary))
    hidden_SH = torch.randn(rows, hidden, requires_grad=True)
    teacher_hidden_SK = torch.randn(rows, hidden)
    labels_S = torch.where(torch.arange(rows) % 7 == 0, torch.arange(rows) % vocabulary, -100)
    mix = Mix(0.5 / rows, 0.5 / rows, 2.0, chunk or rows)
    distilled_S = torch.ones(rows, dtype=torch.bool)
    before_mb = _status_mb("VmRSS")
    walls, cpus = [], []
    for _ in range(REPEATS):
        for tensor in (weight_VH, bias_V, hidden_SH):
            tensor.grad = None
        wall, cpu = time.perf_counter(), time.process_time()
        if chunk:
            student = Projection(weight_VH, bias_V)
            loss, _ = projection_loss(hidden_SH, student, labels_S, mix, teacher_hidden_SK, teacher, distilled_S)
        else:
            loss = _whole(F.linear(hidden_SH, weight_VH, bias_V), teacher.logits(teacher_hidden_SK), labels_S, mix)
        loss.backward()  # type: ignore[no-untyped-call]
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"wall_s": min(walls), "cpu_s": min(cpus), "peak_mb": _status_mb("VmHWM") - before_mb, "loss": loss.item()}


def _whole(logits_SV: torch.Tensor, teacher_SV: torch.Tensor, labels_S: torch.Tensor, mix: Mix) -> torch.Tensor:
    """The loss as it is usually written: cross-entropy and ``kl_div`` over logits that exist whole."""
    task = F.cross_entropy(logits_SV, labels_S, reduction="sum", ignore_index=-100)
    log_p_SV = F.log_softmax(teacher_SV / mix.temperature, -1)
    log_q_SV = F.log_softmax(logits_SV / mix.temperature, -1)
    distilled = F.kl_div(log_q_SV, log_p_SV, reduction="sum", log_target=True) * mix.temperature**2
    return mix.task_scale * task + mix.teacher_scale * distilled


def _in_a_process(*case: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.projection", "--case", *map(str, case)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _status_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}; this benchmark needs Linux")


if __name__ == "__main__":
    main()
