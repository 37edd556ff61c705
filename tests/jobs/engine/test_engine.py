"""What the engine knows of the machine."""

from pathlib import Path

import pytest
import torch

from prunus.jobs.engine.precision import bf16_slows_down
from tests.contract.gang_cases import EXAMPLES, Case
from tests.tiny_inputs import TinyInputs


@pytest.mark.parametrize(
    ("precision", "device", "flags", "slow"),
    [
        ("bf16", "cpu", "flags\t\t: fpu avx512_bf16", True),
        ("bf16", "cpu", "flags\t\t: fpu avx512_bf16 amx_bf16 amx_tile", False),
        ("bf16", "cpu", "Features\t: fp asimd bf16", False),  # ARM
        ("bf16", "cuda", "flags\t\t: fpu", False),
        ("fp32", "cpu", "flags\t\t: fpu", False),
    ],
)
def test_bf16_needs_amx_on_an_x86_cpu(
    tiny: TinyInputs, tmp_path: Path, precision: str, device: str, flags: str, slow: bool
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{flags}\nbugs\t\t: none\n")
    spec = Case(EXAMPLES["dense"].spec, precision=precision).spec(tiny)
    assert bf16_slows_down(spec, torch.device(device), cpuinfo) is slow
    assert not bf16_slows_down(spec, torch.device(device), tmp_path / "nowhere")
