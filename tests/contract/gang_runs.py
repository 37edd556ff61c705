"""Gangs as the tests see them: run a case once, then read what it left."""

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from prunus.configs import Launch, RankError
from prunus.configs.artifacts.layout import JobDirectory
from tests.contract.gang_cases import Case
from tests.tiny_inputs import TinyInputs

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class GangRun:
    """What one gang left."""

    directory: JobDirectory
    attempt: int
    exit_codes: list[int]

    @cached_property
    def _states(self) -> dict[int, dict[str, Tensors]]:
        return {}

    @property
    def succeeded(self) -> bool:
        return not any(self.exit_codes)

    @property
    def log(self) -> str:
        """Rank 0's log, for a failing assertion."""
        path = self.directory.rank_log(self.attempt, 0)
        return path.read_text(encoding="utf-8") if path.is_file() else "(no log)"

    @property
    def error(self) -> RankError:
        """Why the first rank that knew stopped."""
        paths = self.directory.attempt(self.attempt).glob("error-rank-*.json")
        return min((RankError.model_validate_json(p.read_text(encoding="utf-8")) for p in paths), key=lambda e: e.time)

    def state(self, rank: int = 0) -> dict[str, Tensors]:
        """Master, copy, exp_avg and exp_avg_sq by weight, whole, at the end of training."""
        if rank not in self._states:
            self._states[rank] = torch.load(self.directory.root / f"state-rank-{rank}.pt", weights_only=True)
        return self._states[rank]

    @property
    def logits(self) -> torch.Tensor:
        """What the model of rank 0 said in the training process to token ids 5 to 20."""
        said: torch.Tensor = torch.load(self.directory.root / "logits-rank-0.pt", weights_only=True)
        return said

    @cached_property
    def weights(self) -> Tensors:
        """The exported file."""
        return dict(load_file(self.directory.artifacts / "model" / "model.safetensors"))

    @cached_property
    def masks(self) -> Tensors:
        """The exported masks, unpacked here by hand: uint8 little-endian bits, True keeps."""
        (path,) = self.directory.artifacts.glob("masks/step-*/mask.safetensors")
        return {
            name: ((packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1)
            .bool()
            .flatten()[: self.weights[name].numel()]
            .view(self.weights[name].shape)
            for name, packed in load_file(path).items()
        }

    @property
    def losses(self) -> dict[int, float]:
        """Task loss by optimizer step, from the spool of metrics. A step that stands there twice is an error."""
        found: dict[int, float] = {}
        for line in (self.directory.tracking / "spool.jsonl").read_text(encoding="utf-8").splitlines():
            point = json.loads(line)
            if point["op"] == "metrics" and "loss/task" in point["values"]:
                assert point["step"] not in found, f"step {point['step']} was logged twice"
                found[point["step"]] = point["values"]["loss/task"]
        return found


class Gangs:
    """Runs cases in one forking process; a case that was asked for before is not run again."""

    def __init__(self, root: Path, tiny: TinyInputs, environment: dict[str, str]) -> None:
        self._root, self._tiny = root, tiny
        self._done: dict[Any, GangRun] = {}
        self._count = 0
        self._turn = threading.Lock()
        self._log = (root / "server.log").open("w", encoding="utf-8")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.gang_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        self._answer()

    def run(self, case: Case) -> GangRun:
        """Run a case in a directory of its own, once per session; it must succeed."""
        key = repr(case)
        if key not in self._done:
            self._done[key] = self.attempt(case, self.new_directory())
        run = self._done[key]
        assert run.succeeded, f"{case} ended with {run.exit_codes}:\n{run.log[-4000:]}"
        return run

    def new_directory(self) -> Path:
        """A fresh job directory."""
        self._count += 1
        return self._root / f"job-{self._count}"

    def attempt(
        self,
        case: Case,
        job_dir: Path,
        number: int = 1,
        kill_after_step: int | None = None,
        kill_ranks: tuple[int, ...] = (0, 1),
        publish_wait_s: float = 60.0,
    ) -> GangRun:
        """Run one attempt of a case; it may fail. SIGKILL hits it once a step after ``kill_after_step`` is done."""
        launch = case.launch(self._tiny, job_dir, self._root / "cache", number)
        kill = {"kill_after_step": kill_after_step, "kill_ranks": kill_ranks}
        return self.launch(launch, **kill, publish_wait_s=publish_wait_s)

    def launch(self, launch: Launch, **request: Any) -> GangRun:
        """Run what the service would hand to a gang."""
        directory = JobDirectory(launch.job_dir)
        directory.attempt(launch.attempt).mkdir(parents=True)
        path = directory.launch(launch.attempt)
        path.write_text(launch.model_dump_json(by_alias=True), encoding="utf-8")
        request |= {"launch": str(path), "num_ranks": launch.spec.resources.num_ranks}
        assert self._server.stdin is not None
        with self._turn:
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            return GangRun(directory, launch.attempt, self._answer()["exit_codes"])

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(30)
        self._server.stdout.close()
        self._log.close()

    def _answer(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, f"the gang server died:\n{(self._root / 'server.log').read_text()[-4000:]}"
        answer: dict[str, Any] = json.loads(line)
        return answer
