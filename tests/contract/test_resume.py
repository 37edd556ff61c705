"""A gang that is killed with SIGKILL and started again ends where the unbroken run ends, to the bit."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors import safe_open

from prunus.configs.artifacts.layout import JobDirectory
from tests.contract.gang_cases import EXAMPLES, FEW, STRATEGIES, STRATEGY_CELLS, Case, cell, needs_fp16
from tests.contract.gang_runs import GangRun, Gangs
from tests.tiny_inputs import TinyInputs

pytestmark = pytest.mark.cluster
TRAIN = (("num_steps", 20), ("checkpoint_every", 5), ("keep_checkpoints", 2))
KILL_AFTER = 7


def dropping(method: str, strategy: str, num_ranks: int = 2, **more: object) -> Case:
    """With dropout, so that random numbers count too."""
    example = EXAMPLES[method]
    return Case(example.spec, strategy, num_ranks, from_sparse=example.from_sparse, dropout=0.1, train=TRAIN, **more)  # type: ignore[arg-type]


def assert_same_end(resumed: GangRun, unbroken: GangRun) -> None:
    assert resumed.succeeded, resumed.log[-4000:]
    assert "resumed from step-" in resumed.log
    assert resumed.weights.keys() == unbroken.weights.keys()
    for name, weight in unbroken.weights.items():
        assert torch.equal(resumed.weights[name], weight), name
    for rank in range(len(unbroken.exit_codes)):
        for place, tensors in unbroken.state(rank).items():
            for name, tensor in tensors.items():
                assert torch.equal(resumed.state(rank)[place][name], tensor), f"{place} {name} of rank {rank}"
    assert resumed.losses == unbroken.losses  # each step once, over both attempts
    for path in unbroken.directory.artifacts.glob("masks/step-*/mask.safetensors"):
        other = resumed.directory.artifacts / path.relative_to(unbroken.directory.artifacts)
        assert content_of(other) == content_of(path)


def content_of(path: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """Metadata and bits of a mask; safetensors writes the keys of the metadata in any order."""
    with safe_open(path, framework="np") as opened:
        names = opened.keys()
        return opened.metadata(), {name: opened.get_tensor(name).tobytes() for name in names}


def kill_and_resume(gangs: Gangs, case: Case) -> GangRun:
    directory = gangs.new_directory()
    killed = gangs.attempt(case, directory, 1, kill_after_step=KILL_AFTER)
    assert -signal.SIGKILL in killed.exit_codes, f"the gang ended before it was killed: {killed.exit_codes}"
    assert not (directory / "artifacts" / "manifest.json").exists()
    return gangs.attempt(case, directory, 2)


@pytest.mark.parametrize("strategy", [cell(s, always=s != "zero3") for s in FEW])
def test_a_gang_killed_while_parp_adjusts_resumes_to_the_bit(gangs: Gangs, strategy: str) -> None:
    """Prunings after 3, 6, 9 … steps, checkpoints after 5, 10 …: in the middle of adjusting, one pool with biases."""
    spec = {"name": "parp", "final_sparsity": 0.7, "initial_sparsity": 0.4, "update_every": 3}
    case = Case(spec, strategy, 2, dropout=0.1, train=TRAIN)
    assert_same_end(kill_and_resume(gangs, case), gangs.run(case))


@pytest.mark.parametrize("strategy", STRATEGY_CELLS)
def test_a_killed_gang_resumes_to_the_bit(gangs: Gangs, strategy: str) -> None:
    case = dropping("gradual_magnitude", strategy)
    assert_same_end(kill_and_resume(gangs, case), gangs.run(case))


@pytest.mark.parametrize("method", sorted(set(EXAMPLES) - {"gradual_magnitude"}))
def test_every_method_resumes_to_the_bit(gangs: Gangs, method: str) -> None:
    case = dropping(method, "zero2")
    assert_same_end(kill_and_resume(gangs, case), gangs.run(case))


def test_one_rank_in_bf16_resumes_to_the_bit(gangs: Gangs) -> None:
    case = dropping("gradual_magnitude", "zero2", 1, precision="bf16", distils=True)
    assert_same_end(kill_and_resume(gangs, case), gangs.run(case))


@needs_fp16
def test_fp16_resumes_to_the_bit(gangs: Gangs) -> None:
    case = dropping("gradual_magnitude", "zero2", precision="fp16")
    assert_same_end(kill_and_resume(gangs, case), gangs.run(case))


def test_a_stream_resumes_to_the_bit(gangs: Gangs) -> None:
    case = dropping("gradual_magnitude", "zero1", data=(("streaming", True),))
    assert_same_end(kill_and_resume(gangs, case), gangs.run(case))


def test_a_checkpoint_that_was_cut_off_is_not_used(gangs: Gangs) -> None:
    """The newest is damaged, an unfinished one lies beside it: the one before is taken, and the end is the same."""
    case = dropping("gradual_magnitude", "zero2")
    directory = gangs.new_directory()
    killed = gangs.attempt(case, directory, 1, kill_after_step=12)
    assert -signal.SIGKILL in killed.exit_codes
    newest, before = sorted((directory / "checkpoints").glob("step-*[0-9]"), key=lambda p: -int(p.name[5:]))
    victim = max(newest.rglob("*.pt"), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1000])
    (directory / "checkpoints" / "step-15.case-a1.tmp").mkdir()
    resumed = gangs.attempt(case, directory, 2)
    assert f"resumed from {before.name}:" in resumed.log
    assert_same_end(resumed, gangs.run(case))


@pytest.mark.parametrize(
    ("strategy", "victim"), [cell(s, v, always=v == 0 or s == "zero2") for s in STRATEGIES for v in (0, 1)]
)
def test_a_rank_whose_peer_dies_says_so(gangs: Gangs, strategy: str, victim: int) -> None:
    case = dropping("gradual_magnitude", strategy)
    run = gangs.attempt(case, gangs.new_directory(), kill_after_step=KILL_AFTER, kill_ranks=(victim,))
    assert run.exit_codes[victim] == -signal.SIGKILL
    assert run.exit_codes[1 - victim] == 1, "the other rank hangs"
    assert run.error.reason == "worker_lost", run.error.message
    assert run.error.retryable


def test_other_ranks_strategy_or_method_are_refused_with_a_message(gangs: Gangs) -> None:
    case = dropping("gradual_magnitude", "zero2")
    directory = gangs.new_directory()
    gangs.attempt(case, directory, 1, kill_after_step=KILL_AFTER)
    others = {
        "num_ranks": (dropping("gradual_magnitude", "zero2", 1), "2", "1"),
        "strategy": (dropping("gradual_magnitude", "zero1"), "'zero2'", "'zero1'"),
    }
    for number, (key, (other, written, asked)) in enumerate(others.items(), start=2):
        refused = gangs.attempt(other, directory, number)
        assert not refused.succeeded
        assert refused.error.reason == "user_error"
        assert f"{key} = {written}" in refused.error.message
        assert asked in refused.error.message
        assert "resume with the same" in refused.error.message
    assert_same_end(gangs.attempt(case, directory, 4), gangs.run(case))  # what was refused has harmed nothing


def test_all_checkpoints_damaged_is_an_error_and_never_a_fresh_start(gangs: Gangs) -> None:
    case = dropping("gradual_magnitude", "zero2")
    directory = gangs.new_directory()
    gangs.attempt(case, directory, 1, kill_after_step=KILL_AFTER)
    for manifest in (directory / "checkpoints").glob("step-*/manifest.json"):
        manifest.write_text("{")
    refused = gangs.attempt(case, directory, 2)
    assert refused.error.reason == "user_error"
    assert "no checkpoint is whole" in refused.error.message
    assert not refused.losses.keys() - set(range(1, KILL_AFTER + 5))


def test_an_attempt_that_was_superseded_writes_nothing(gangs: Gangs) -> None:
    case = Case({"name": "dense"}, "zero2", 2)
    directory = gangs.new_directory()
    directory.mkdir()
    (directory / "fence").write_text("7")
    stale = gangs.attempt(case, directory, 3)
    assert not stale.succeeded
    assert stale.error.reason == "cancelled"
    assert "superseded by token 7" in stale.error.message
    assert not (directory / "artifacts").exists()
    assert not (directory / "checkpoints").exists()


@pytest.mark.chaos
def test_by_hand_under_torchrun(
    gangs: Gangs, tiny: TinyInputs, rank_environment: dict[str, str], tmp_path: Path
) -> None:
    """``torchrun -m prunus.jobs SPEC OUT``: killed, started again with the same OUT, equal to the service's gang."""
    case = dropping("gradual_magnitude", "zero2")
    recipe, out = tmp_path / "case.yaml", tmp_path / "out"
    recipe.write_text(yaml.safe_dump(case.spec(tiny).model_dump(mode="json", by_alias=True)), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "prunus.jobs"]
    command += [str(recipe), str(out)]
    log = JobDirectory(out).rank_log(1, 0)
    first = subprocess.Popen(
        command, env=rank_environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while not (log.is_file() and f"step {KILL_AFTER + 1}/20" in log.read_text(encoding="utf-8")):
            assert first.poll() is None, log.read_text(encoding="utf-8") if log.is_file() else "no log"
            time.sleep(0.005)
    finally:
        # Ranks first: torchrun gives each a session of its own, and they would go on without it.
        for process in [*psutil.Process(first.pid).children(recursive=True), first]:
            process.kill()
        first.wait()
    second = subprocess.run(command, env=rank_environment, capture_output=True, text=True, timeout=300, check=False)
    assert second.returncode == 0, second.stderr[-4000:]
    assert '"eval/loss"' in second.stdout
    resumed, unbroken = GangRun(JobDirectory(out), 1, [0, 0]), gangs.run(case)
    assert "resumed from step-" in resumed.log
    assert all(torch.equal(resumed.weights[name], weight) for name, weight in unbroken.weights.items())
    assert resumed.losses == unbroken.losses
    assert json.loads((out / "artifacts" / "manifest.json").read_text())["job_name"] == "case"


def test_a_wrong_number_of_ranks_is_refused_in_one_line(
    tiny: TinyInputs, rank_environment: dict[str, str], tmp_path: Path
) -> None:
    recipe = tmp_path / "case.yaml"
    spec = dropping("gradual_magnitude", "zero2").spec(tiny).model_dump(mode="json", by_alias=True)
    recipe.write_text(yaml.safe_dump(spec), encoding="utf-8")
    command = [sys.executable, "-m", "prunus.jobs", str(recipe), str(tmp_path / "out")]
    ended = subprocess.run(command, env=rank_environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("prunus: 1 ranks were started, resources.num_ranks is 2")


def test_a_directory_used_again_keeps_nothing_of_the_run_before(gangs: Gangs) -> None:
    spec = EXAMPLES["gradual_magnitude"].spec
    directory = gangs.new_directory()
    for number, (steps, method) in enumerate(((12, spec), (8, {**spec, "final_sparsity": 0.5})), 1):
        case = Case(method, "ddp", 1, train=(("num_steps", steps),))
        assert gangs.attempt(case, directory, number).succeeded
    assert [path.name for path in (directory / "artifacts" / "masks").iterdir()] == ["step-8"]


def test_a_job_with_another_learning_rate_does_not_go_on_from_the_old_checkpoint(gangs: Gangs) -> None:
    directory = gangs.new_directory()
    case = dropping("gradual_magnitude", "ddp", 1)
    gangs.attempt(case, directory, 1, kill_after_step=KILL_AFTER)
    other = replace(case, train=(*TRAIN, ("lr", {"peak": 0.5})))
    refused = gangs.attempt(other, directory, 2)
    assert not refused.succeeded
    assert "was written with optimizer = " in refused.error.message
