"""Gangs of real ranks without paying the imports (7 s) for each: one process imports, then forks every rank.

Run as a program by ``gang_runs.Gangs``. A request is one line of JSON on stdin, the answer one line on stdout:

    {"launch": PATH, "num_ranks": 2}    and, if wanted: "kill_after_step": 5, "kill_ranks": [1], "publish_wait_s": 5
    {"exit_codes": [0, -9]}

Each rank is a process of its own with the environment that torchrun would give it, and calls ``jobs.run.run_rank``.
When training has ended it leaves ``state-rank-N.pt``: what DeepSpeed's and torch's own functions say of its weights.
"""

import json
import os
import re
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401 - DeepSpeed imports it late, and it is slow
import matplotlib.pyplot  # noqa: F401 - for the figures of every sparse job
import torch
import torch.distributed as dist
import transformers.models.bert.modeling_bert  # noqa: F401 - so that ranks need not
from deepspeed.runtime.zero.partition_parameters import GatheredParameters
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

import prunus.jobs.kinds as kinds
import prunus.jobs.results.finish as results
import prunus.jobs.run as job
from prunus.configs import Launch
from prunus.configs.artifacts.layout import JobDirectory
from prunus.jobs.training.training import Training

Tensors = dict[str, torch.Tensor]
MOMENTS = ("exp_avg", "exp_avg_sq")
_LONGEST_GANG_S = 240.0
"""A gang that hangs is killed after so many seconds: exit codes of -9."""
_STEP = re.compile(rb"jobs\.training\.loop: step (\d+)/")


def state_of(run: Training) -> dict[str, Tensors]:
    """Master, copy and moments of every trained weight, whole (collective).

    Asked from DeepSpeed and torch, not from ``jobs.engine.shards``.
    """
    optimizer: Any = run.engine.engine_optimizer
    flat = hasattr(optimizer, "single_partition_of_fp32_groups")
    found: dict[str, Tensors] = {"master": {}, "copy": {}, "exp_avg": {}, "exp_avg_sq": {}}
    student = run.engine.objective.student
    names = {parameter: name for name, parameter in student.named_parameters() if parameter.requires_grad}
    for parameter, name in names.items():
        if hasattr(parameter, "ds_id"):
            with GatheredParameters([parameter]):
                found["copy"][name] = parameter.data.detach().cpu().clone()
        else:
            found["copy"][name] = parameter.data.detach().cpu().clone()
        sharded = hasattr(parameter, "ds_id") or flat
        master = safe_get_full_fp32_param(parameter) if sharded else parameter.data
        found["master"][name] = master.detach().cpu().clone()
        learns = not name.endswith("mask_emb")  # XLNet's has no part in the loss
        for key in MOMENTS if learns and not flat else ():
            whole = (
                safe_get_full_optimizer_state(parameter, key)
                if sharded
                else run.engine.torch_optimizer.state[parameter][key]
            )
            found[key][name] = whole.detach().cpu().clone()
    for key in MOMENTS if flat else ():
        for group, parameters in enumerate(optimizer.round_robin_bit16_groups):
            found[key] |= _unflatten(optimizer, group, key, {names[parameter]: parameter for parameter in parameters})
    return found


def _unflatten(optimizer: Any, group: int, key: str, parameters: Tensors) -> Tensors:
    """ZeRO-1 and 2: the ranks' partitions, one after the other, are the group's weights, one after the other."""
    mine = optimizer.optimizer.state[optimizer.single_partition_of_fp32_groups[group]][key]
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    sizes = [parameter.numel() for parameter in parameters.values()]
    runs = torch.split(torch.cat(parts)[: sum(sizes)], sizes)
    return {name: run.view_as(p).cpu().clone() for (name, p), run in zip(parameters.items(), runs, strict=True)}


def logits_of(run: Training) -> torch.Tensor:
    """What the model in this process says to token ids 5 to 20, or to 1600 samples of a ramp (collective)."""
    student = run.engine.objective.student
    student.eval()
    with torch.no_grad():
        asked: Tensors = {"input_ids": torch.arange(5, 21)[None]}
        if student.main_input_name == "input_values":
            asked = {"input_values": torch.arange(-800, 800)[None].to(next(student.parameters()).dtype) / 800}
        logits = student(**asked).logits  # ZeRO-3's own hooks gather what each layer needs
        if logits.shape[-1] == student.config.hidden_size:  # training takes the last layer out of the model's forward
            head = student.get_output_embeddings()
            with GatheredParameters([p for p in head.parameters() if hasattr(p, "ds_id")]):
                logits = torch.nn.functional.linear(logits, head.weight, head.bias)
    said: torch.Tensor = logits.detach().float().cpu()
    return said


def run_rank(launch_path: Path, publish_wait_s: float) -> None:
    """Be one rank, in a fresh child process."""
    results.PUBLISH_WAIT_S = publish_wait_s
    launch = Launch.model_validate_json(launch_path.read_text(encoding="utf-8"))
    trained = kinds.train  # type: ignore[attr-defined]

    def observed(run: Training) -> dict[str, float]:
        metrics = trained(run)
        torch.save(state_of(run), Path(launch.job_dir) / f"state-rank-{run.ranks.rank}.pt")
        if launch.spec.task.name in {"masked_lm", "classification"}:
            torch.save(logits_of(run), Path(launch.job_dir) / f"logits-rank-{run.ranks.rank}.pt")
        return metrics

    kinds.train = observed  # type: ignore[attr-defined]
    job.run_rank(launch)


def fork_rank(rank: int, world_size: int, port: int, launch_path: Path, publish_wait_s: float) -> int:
    """Start one rank; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(launch_path.with_name(f"stdout-{rank}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        run_rank(launch_path, publish_wait_s)
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def reached(log: Path, step: int) -> bool:
    """Whether rank 0 has logged a step after ``step``."""
    return log.is_file() and any(int(found) > step for found in _STEP.findall(log.read_bytes()))


def run_gang(request: dict[str, Any]) -> list[int]:
    """Run one gang to its end, or to its death; exit codes by rank, -9 for killed."""
    launch_path, world_size, kill_after = Path(request["launch"]), request["num_ranks"], request.get("kill_after_step")
    launch = Launch.model_validate_json(launch_path.read_text(encoding="utf-8"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    wait_s = request.get("publish_wait_s", 60.0)
    alive = {fork_rank(r, world_size, port, launch_path, wait_s): r for r in range(world_size)}
    codes = [0] * world_size
    log = JobDirectory(launch.job_dir).rank_log(launch.attempt, 0)
    failed_at: float | None = None
    deadline = time.monotonic() + _LONGEST_GANG_S
    try:
        while alive:
            if kill_after is not None and reached(log, kill_after):
                kill_after = None
                for pid, rank in alive.items():
                    if rank in request["kill_ranks"]:
                        os.kill(pid, signal.SIGKILL)
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid:
                codes[alive.pop(pid)] = os.waitstatus_to_exitcode(status)
                if status and failed_at is None:
                    failed_at = time.monotonic()
                continue
            now = time.monotonic()  # as torchrun: no rank outlives its gang by long
            if now > deadline or (failed_at is not None and now - failed_at > 20):
                for other in alive:
                    os.kill(other, signal.SIGKILL)
            time.sleep(0.003)
    finally:
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
    return codes


def main() -> None:
    """Serve requests until stdin closes."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps({"exit_codes": run_gang(json.loads(line))}), file=answers, flush=True)
    os._exit(0)  # exit hooks of a dozen libraries have nothing to do here


if __name__ == "__main__":
    main()
