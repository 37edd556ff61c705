"""Accelerate over DeepSpeed (ZeRO 0-3) or over plain DDP, behind the few verbs that the loop needs.

bf16 and fp16: ZeRO 1-3 keep a copy of that type beside fp32 masters; DDP and ZeRO-0 have no such copy, so there bf16
runs under autocast, and fp16 is refused.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepspeed.ops
import torch
from accelerate import Accelerator, DeepSpeedPlugin
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from deepspeed.runtime.zero.partition_parameters import register_external_parameter
from deepspeed.utils import safe_get_full_fp32_param
from torch import nn

from prunus.configs.specs.job import JobSpec
from prunus.configs.values.wording import listed
from prunus.jobs.engine.deepspeed_config import deepspeed_config
from prunus.jobs.engine.precision import uses_autocast
from prunus.jobs.engine.unused_weights import weights_out_of_reach
from prunus.jobs.objectives.base import Batch, Objective, Result
from prunus.jobs.ranks import Ranks

log = logging.getLogger(__name__)

# DeepSpeed would compile a C++ operator for small collectives of CPU inference, which training never calls. Besides
# the half minute and the compiler it asks for, a rank killed meanwhile leaves torch's lock file behind, and every later
# rank on the machine waits for it for ever (seen). An empty table of compatible operators says: none.
deepspeed.ops.__compatible_ops__ = {}


@dataclass(frozen=True)
class ParamGroup:
    """Parameters that are not the model's own and learn at a pace of theirs: a projection of hidden states, gates.

    Attributes:
        parameters: Parts of the objective.
        peak_lr: Their highest learning rate; it follows the schedule of ``train.lr``.
        weight_decay: Decoupled.
    """

    parameters: tuple[nn.Parameter, ...]
    peak_lr: float
    weight_decay: float = 0.0


def build_optimizer(objective: Objective, spec: JobSpec, own: Sequence[ParamGroup] = ()) -> torch.optim.AdamW:
    """AdamW without decay on biases and LayerNorm (1-D parameters).

    Args:
        own: Groups of parameters with a learning rate of their own; all others follow ``train``.
    """
    theirs = {id(parameter) for group in own for parameter in group.parameters}
    trained = [p for p in objective.parameters() if p.requires_grad and id(p) not in theirs]
    train = spec.train
    groups = [
        ParamGroup(tuple(p for p in trained if p.dim() > 1), train.lr.peak, train.weight_decay),
        ParamGroup(tuple(p for p in trained if p.dim() <= 1), train.lr.peak),
        *own,
    ]
    # One pass over memory instead of a dozen: five times as fast on a CPU core.
    return torch.optim.AdamW(
        [
            {"params": list(group.parameters), "lr": group.peak_lr, "weight_decay": group.weight_decay}
            for group in groups
            if group.parameters
        ],
        betas=train.betas,
        eps=train.eps,
        fused=True,
    )


class Engine:
    """The student, its optimizer and how ranks share them.

    Args:
        objective: Student plus loss, on the CPU or the rank's device.
        spec: The job.
        ranks: The gang; its process group exists.
        sample: For DDP a micro-batch of training on the rank's device, by which it is told whether every weight has a
            part in the loss (one forward pass). Not used by DeepSpeed: ZeRO takes gradients that are missing for 0.
        own_groups: Parameters with a learning rate of their own.
    """

    def __init__(
        self,
        objective: Objective,
        spec: JobSpec,
        ranks: Ranks,
        sample: Batch | None = None,
        own_groups: Sequence[ParamGroup] = (),
    ) -> None:
        self.objective = objective
        self.ranks = ranks
        self.max_grad_norm = spec.train.max_grad_norm
        self.is_deepspeed = spec.engine.zero_stage is not None
        self.torch_optimizer = build_optimizer(objective, spec, own_groups)
        self._peaks = [group["lr"] for group in self.torch_optimizer.param_groups]
        # Engines round what is not trained to the low precision as well; the export wants it as it came.
        self._frozen = {
            name: parameter.detach().cpu().clone()
            for name, parameter in objective.student.named_parameters()
            if not parameter.requires_grad and ranks.is_main
        }
        objective.to(ranks.device)
        plugin = None
        handlers: list[Any] = [InitProcessGroupKwargs(backend="nccl" if ranks.device.type == "cuda" else "gloo")]
        if self.is_deepspeed:
            plugin = DeepSpeedPlugin(hf_ds_config=deepspeed_config(spec))
        elif sample is not None:
            idle = weights_out_of_reach(objective, sample)
            if any(ranks.gather(bool(idle))):  # all or none: looking is a collective
                handlers.append(DistributedDataParallelKwargs(find_unused_parameters=True))
                log.info("%d weights have no part in the loss: %s", len(idle), listed(idle, 5))
        self.accelerator = Accelerator(
            cpu=ranks.device.type == "cpu" and not self.is_deepspeed,
            mixed_precision="no" if spec.engine.precision == "fp32" or uses_autocast(spec) else spec.engine.precision,
            gradient_accumulation_steps=spec.accumulation_steps,
            deepspeed_plugin=plugin,
            kwargs_handlers=handlers,
        )
        self.model, self.optimizer = self.accelerator.prepare(objective, self.torch_optimizer)
        if self.is_deepspeed and spec.engine.zero_stage == 3:
            self._keep_head_gathered()

    def _keep_head_gathered(self) -> None:
        """The objective uses the vocabulary projection outside its own module: tell ZeRO-3 to gather it there."""
        head = self.objective.student.get_output_embeddings()
        if head is not None:
            for parameter in head.parameters():
                register_external_parameter(self.objective, parameter)

    @property
    def engine_optimizer(self) -> object:
        """DeepSpeed's optimizer, which knows where fp32 masters and copies lie; the torch one under DDP."""
        return self.model.optimizer if self.is_deepspeed else self.torch_optimizer

    def accumulate(self) -> AbstractContextManager[Any]:
        """One micro-batch; gradients are reduced and applied after the last one of a step."""
        return self.accelerator.accumulate(self.model)  # type: ignore[no-any-return]

    def forward(self, batch: Batch, scales: Sequence[float]) -> Result:
        """Run the objective through the wrapped model."""
        return self.model(batch, scales)  # type: ignore[no-any-return]

    def measure(self, batch: Batch) -> Result:
        """Run it for an evaluation: the task's sum alone, unscaled."""
        return self.forward(batch, self.objective.only_task)

    def backward_and_step(self, loss: torch.Tensor, tap: Callable[[], None] | None = None) -> None:
        """Backward pass; after the step's last micro-batch also clipping and the optimizer.

        Args:
            tap: Called between the two, when the gradients of the whole step are there (``engine.gradients``).
        """
        last = self.accelerator.sync_gradients
        if self.is_deepspeed:  # as Accelerate does it, with room for the tap
            self.model.set_gradient_accumulation_boundary(is_boundary=last)
            self.model.backward(loss)
        else:
            self.accelerator.backward(loss)
        if last and tap is not None:
            tap()
        if last and self.is_deepspeed:
            self.model.step()
        elif last and self.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def set_lr(self, factor: float) -> None:
        """Use this share of each group's highest learning rate for the next optimizer step."""
        for group, peak in zip(self.torch_optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor

    def train_mode(self, training: bool) -> None:
        """Dropout on or off; the teacher is never touched."""
        self.model.train(training)

    def full_weights(self) -> Iterator[tuple[str, torch.Tensor | None]]:
        """Yield (name, fp32 weight on the CPU) of the student one by one; None on ranks other than 0 (collective)."""
        for name, parameter in self.objective.student.named_parameters():
            if not parameter.requires_grad:
                yield name, self._frozen[name] if self.ranks.is_main else None
                continue
            full = self._full(parameter)
            yield name, full.detach().float().cpu().clone() if self.ranks.is_main else None

    def _full(self, parameter: nn.Parameter) -> torch.Tensor:
        full = safe_get_full_fp32_param(parameter) if self.is_deepspeed else None
        return parameter.data if full is None else full

    def save(self, directory: Path) -> None:
        """Write weights and optimizer, all ranks together, into ``directory`` (collective)."""
        if self.is_deepspeed:
            self._save_deepspeed(directory)
        elif self.ranks.is_main:
            state = {"model": self.objective.state_dict(), "optimizer": self.torch_optimizer.state_dict()}
            torch.save(state, directory / "ddp.pt")

    def _save_deepspeed(self, directory: Path) -> None:
        """DeepSpeed's save ends with a barrier: a rank that cannot write must still reach it, or the others wait."""
        files, problems = self.model.checkpoint_engine, []
        write = files.save

        def save(state_dict: Any, path: str) -> None:
            try:
                write(state_dict, path)
            except (OSError, RuntimeError) as error:
                problems.append(error)

        files.save, self.model._copy_recovery_script = save, lambda _: None  # the script is for files without manifest
        try:
            self.model.save_checkpoint(str(directory), tag="engine", save_latest=False)
        finally:
            files.save = write
        if problems:
            raise problems[0]

    def load(self, directory: Path) -> None:
        """Read back what ``save`` wrote, by as many ranks (collective). The caller has verified the manifest:
        DeepSpeed unpickles.
        """
        if self.is_deepspeed:
            path, _ = self.model.load_checkpoint(str(directory), tag="engine")
            if path is None:
                raise FileNotFoundError(f"DeepSpeed found no state in {directory}")
        else:
            state = torch.load(directory / "ddp.pt", map_location=self.ranks.device, weights_only=True)
            self.objective.load_state_dict(state["model"])
            self.torch_optimizer.load_state_dict(state["optimizer"])
