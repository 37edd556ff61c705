"""Which precision the forward pass has, and where bf16 is slow."""

from pathlib import Path

import torch

from prunus.configs.specs.job import JobSpec


def bf16_slows_down(spec: JobSpec, device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this job is likely to be faster in fp32: bf16 on an x86 CPU without AMX.

    A step took 2.8 times as long on a Xeon with avx512_bf16 alone (benchmarks/README.md).
    """
    if spec.engine.precision != "bf16" or device.type != "cpu" or not cpuinfo.is_file():
        return False
    flags = next((line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("flags")), "")
    return bool(flags) and "amx_bf16" not in flags.split()


def uses_autocast(spec: JobSpec) -> bool:
    """Whether bf16 comes from autocast (no low-precision copy of the weights)."""
    return spec.engine.precision == "bf16" and spec.engine.zero_stage in {None, 0}
