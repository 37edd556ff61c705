"""What the engine knows of the machine."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from prunus.jobs.engine.engine import ParamGroup, build_optimizer
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


def test_parameters_with_a_rate_of_their_own_have_a_group_of_their_own() -> None:
    objective: Any = nn.ModuleDict({"student": nn.Linear(3, 2), "projection": nn.Linear(2, 4, bias=False)})
    projection = objective["projection"].weight
    spec: Any = SimpleNamespace(
        train=SimpleNamespace(lr=SimpleNamespace(peak=0.1), weight_decay=0.01, betas=(0.9, 0.99), eps=1e-8)
    )
    groups = build_optimizer(objective, spec, [ParamGroup((projection,), 0.5)]).param_groups
    shapes = [[tuple(p.shape) for p in group["params"]] for group in groups]
    assert shapes == [[(2, 3)], [(2,)], [(4, 2)]]
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.1, 0.01), (0.1, 0.0), (0.5, 0.0)]
