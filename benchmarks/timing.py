"""How all benchmarks measure: the cases of one comparison take turns within one run, and only their ratios are claims.

Other load on a machine comes and goes; cases that take turns meet the same load, and a ratio within one turn is free
of most of it. Two clocks: wall time, and this process's CPU time (which does not count what other processes take).
"""

import gc
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch


@dataclass(frozen=True)
class Samples:
    """Times of one case, one per turn, in seconds."""

    wall_s: list[float]
    cpu_s: list[float]

    @property
    def median_s(self) -> float:
        return statistics.median(self.wall_s)

    @property
    def best_s(self) -> float:
        return min(self.wall_s)


def take_turns(cases: Mapping[str, Callable[[], object]], turns: int, warm_up: int = 1) -> dict[str, Samples]:
    """Run every case once per turn, every second turn in reverse order, after ``warm_up`` turns that do not count."""
    samples: dict[str, Samples] = {name: Samples([], []) for name in cases}
    order = list(cases)
    gc.disable()  # a collection would fall on one case and not on the other
    try:
        for turn in range(-warm_up, turns):
            for name in order if turn % 2 else reversed(order):
                wall, cpu = time.perf_counter(), time.process_time()
                cases[name]()
                cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                if turn >= 0:
                    samples[name].wall_s.append(wall)
                    samples[name].cpu_s.append(cpu)
    finally:
        gc.enable()
    return samples


def ratio_row(name: str, case: Samples, base: Samples) -> str:
    """One line of Markdown: times of a case, and its ratios to the base case."""
    by_turn = statistics.median(mine / other for mine, other in zip(case.wall_s, base.wall_s, strict=True))
    cpu = statistics.median(case.cpu_s) / statistics.median(base.cpu_s)
    return (
        f"| {name} | {case.best_s * 1e3:.1f} | {case.median_s * 1e3:.1f} | {case.best_s / base.best_s:.3f} "
        f"| {by_turn:.3f} | {cpu:.3f} |"
    )


RATIO_HEAD = (
    "| case | best, ms | median, ms | ratio of best | median of ratios per turn | ratio of CPU time (medians) |\n"
    "|---|---|---|---|---|---|"
)


def machine() -> str:
    """CPU, cores, threads, and versions of what is measured, in one paragraph."""
    model = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "deepspeed", "transformers"))
    return (
        f"{model}, {len(_cpuinfo('processor'))} cores; {torch.get_num_threads()} torch threads; "
        f"Python {platform.python_version()}, {packages}"
    )


def _cpuinfo(start: str = "") -> list[str]:
    file = Path("/proc/cpuinfo")
    return [line for line in file.read_text().splitlines() if line.startswith(start)] if file.exists() else []


def peak_over(case: Callable[[], object], device: torch.device | None = None) -> int:
    """Bytes by which a call raises the peak of this process's resident set (or of the GPU's memory)."""
    gc.collect()
    if device is not None and device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        case()
        return int(torch.cuda.max_memory_allocated() - before)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    case()
    return max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
