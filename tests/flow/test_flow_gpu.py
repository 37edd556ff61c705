"""The contract on a GPU: nccl, bf16, ZeRO 1 to 3, and one recipe by hand. Skipped where there is none."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from tests.contract.gang_cases import EXAMPLES, NUM_STEPS, Case
from tests.contract.gang_runs import Gangs
from tests.tiny_inputs import TinyInputs, is_prunable

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.cluster,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; there is none"),
]


@pytest.fixture(scope="module")
def gpu_environment(rank_environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in rank_environment.items() if name != "DS_ACCELERATOR"}


@pytest.fixture(scope="module")
def gpu_gangs(
    tmp_path_factory: pytest.TempPathFactory, tiny: TinyInputs, gpu_environment: dict[str, str]
) -> Iterator[Gangs]:
    running = Gangs(tmp_path_factory.mktemp("gpu-gangs"), tiny, gpu_environment)
    yield running
    running.close()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("strategy", ["ddp", "zero1", "zero2", "zero3"])
@pytest.mark.parametrize("method", sorted(EXAMPLES))
def test_every_method_holds_its_mask_on_a_gpu(gpu_gangs: Gangs, method: str, strategy: str, precision: str) -> None:
    example = EXAMPLES[method]
    run = gpu_gangs.run(Case(example.spec, strategy, 1, precision, from_sparse=example.from_sparse, num_gpus=1))
    assert sorted(run.losses) == list(range(1, NUM_STEPS + 1))
    state = run.state()
    for name, weight in run.weights.items():
        if is_prunable(name) and example.sparsity:
            removed = ~run.masks[name]
            assert abs(int(removed.sum()) - example.sparsity * weight.numel()) < 1
            assert not weight[removed].any()
            assert not any(tensors[name][removed].any() for tensors in state.values())


def test_one_gpu_gives_the_masks_of_one_cpu(gpu_gangs: Gangs, gangs: Gangs) -> None:
    spec = EXAMPLES["gradual_magnitude"].spec
    on_gpu, on_cpu = gpu_gangs.run(Case(spec, "zero2", num_gpus=1)), gangs.run(Case(spec, "zero2"))
    for step, loss in on_cpu.losses.items():
        assert on_gpu.losses[step] == pytest.approx(loss, rel=1e-3)
    assert sum(int((on_gpu.masks[n] != m).sum()) for n, m in on_cpu.masks.items()) <= 20  # of 8,448


def test_a_killed_gpu_job_resumes(gpu_gangs: Gangs) -> None:
    train = (("num_steps", 200), ("checkpoint_every", 50))
    case = Case(EXAMPLES["gradual_magnitude"].spec, "zero2", 1, "bf16", num_gpus=1, train=train, dropout=0.1)
    directory = gpu_gangs.new_directory()
    assert not gpu_gangs.attempt(case, directory, 1, kill_after_step=60).succeeded
    resumed = gpu_gangs.attempt(case, directory, 2)
    assert resumed.succeeded, resumed.log[-3000:]
    assert "resumed from step-" in resumed.log
    assert sorted(resumed.losses) == list(range(1, 201))


def test_the_shipped_recipe_of_gradual_pruning_runs_by_hand(
    tiny: TinyInputs, gpu_environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    recipe = files("prunus.configs.recipes").joinpath("single", "gradual_magnitude.yaml")
    changes = [f"vars.base={tiny.model}", f"vars.corpus={tiny.text}", f"vars.held_out={tiny.text}"]
    changes += ["train.num_steps=50", "task.data.sequence_length=32", "method.update_every=5"]
    changes += ["engine.precision=bf16", "resources.gpus_per_rank=1"]
    command = [sys.executable, "-m", "prunus.jobs", str(recipe), str(out), *changes]
    ended = subprocess.run(command, env=gpu_environment, capture_output=True, text=True, check=False, timeout=900)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert (out / "artifacts" / "manifest.json").is_file()
