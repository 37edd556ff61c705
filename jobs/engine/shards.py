"""The shard view: of each prunable weight, the part of the fp32 master that this rank owns, under any engine.

    strategy       master                         this rank owns               low-precision copy
    ddp, zero0     the parameter itself           all of it (replicated)       none (autocast)
    zero1, zero2   flat partition of the optim.   a run of it, or nothing      param.data, whole, on every rank
    zero3          flat partition, padded         a run of it, or nothing      param.ds_tensor, the same run

Everything else in this room is written against ``Shard``; nothing else knows of ZeRO. DeepSpeed's public
``safe_get_full_*`` functions gather whole tensors; the fragments read here are what those functions themselves gather
from (deepspeed 0.19.8, ``deepspeed/utils/tensor_fragment.py``), so that no rank ever holds more than its share.
Letters: L elements of a local run, R rows, C columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from deepspeed.utils import safe_get_local_fp32_param, safe_get_local_optimizer_state
from torch import nn

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Shard:
    """This rank's run of one weight, counted in the weight's flattened row-major order.

    Attributes:
        name: The weight's name in the model, as in the exported checkpoint.
        index: Place of the weight among the prunable ones; the order of ties.
        shape: Global shape.
        start: First element owned.
        numel: Elements owned; 0 if this rank owns nothing of it.
        replicated: Every rank owns all of it (then counts must not be added over ranks).
    """

    name: str
    index: int
    shape: tuple[int, ...]
    start: int
    numel: int
    replicated: bool
    parameter: nn.Parameter
    optimizer: torch.optim.Optimizer
    engine_optimizer: Any

    @property
    def global_numel(self) -> int:
        """Elements of the whole weight."""
        return int(torch.Size(self.shape).numel())

    def master_L(self) -> torch.Tensor:
        """The fp32 master values owned, as a view that can be written in place; shape (numel,)."""
        parameter = self.parameter
        if self.numel == 0:
            return torch.empty(0, dtype=torch.float32, device=parameter.device)
        if hasattr(parameter, "ds_id"):
            whole: torch.Tensor = safe_get_local_fp32_param(parameter)
            return whole.detach().view(-1)[: self.numel]
        mapping = getattr(parameter, "_hp_mapping", None)
        if mapping is not None:
            fragment: torch.Tensor = mapping.get_hp_fragment()
            return fragment.detach().view(-1)
        return parameter.data.view(-1)

    def moments_L(self, keys: tuple[str, ...] = MOMENTS) -> Iterator[torch.Tensor]:
        """Adam's moments of the owned run, as views; none before the first optimizer step."""
        parameter = self.parameter
        if self.numel == 0:
            return
        for key in keys:
            if hasattr(parameter, "ds_id"):
                state = _zero3_state(parameter, key)
                if state is not None:
                    yield state.view(-1)[: self.numel]
            elif getattr(parameter, "_hp_mapping", None) is not None:
                state = _flat_state(parameter, self.engine_optimizer, key)
                if state is not None:
                    yield state
            elif key in self.optimizer.state.get(parameter, {}):
                yield self.optimizer.state[parameter][key].view(-1)

    def copy_L(self) -> torch.Tensor | None:
        """The low-precision copy of the owned run, as a view; None where the forward reads the master itself."""
        parameter = self.parameter
        if self.replicated:
            return None
        if hasattr(parameter, "ds_id"):
            run: torch.Tensor = parameter.ds_tensor  # type: ignore[attr-defined]
            return run.data.view(-1)[: self.numel]
        return parameter.data.view(-1)[self.start : self.start + self.numel]


def refresh_copies(engine_optimizer: Any, shards: list[Shard]) -> None:
    """Write every low-precision copy anew from its fp32 master (collective, like the end of an optimizer step).

    Args:
        engine_optimizer: DeepSpeed's optimizer (``engine.optimizer``); ignored where masters are replicated.
    """
    if all(shard.replicated for shard in shards):
        return
    if hasattr(engine_optimizer, "update_lp_params"):  # ZeRO-1 and 2, and the bf16 optimizer
        engine_optimizer.update_lp_params()
        return
    for shard in shards:
        copy_L = shard.copy_L()
        if copy_L is not None and shard.numel:
            copy_L.copy_(shard.master_L())
    persistent = getattr(engine_optimizer, "persistent_parameters", [])
    if persistent:  # small weights that ZeRO-3 keeps whole on every rank: drop the whole ones, then gather them anew
        persistent[0].partition(persistent)
        persistent[0].all_gather(persistent)


def _flat_state(parameter: nn.Parameter, zero: Any, key: str) -> torch.Tensor | None:
    """The run of a moment that belongs to this weight's run of the flat partition (ZeRO-1 and 2)."""
    mapping = parameter._hp_mapping  # type: ignore[attr-defined]
    flat = zero.single_partition_of_fp32_groups[mapping.param_group_index]
    state = zero.optimizer.state.get(flat, {})
    if key not in state:
        return None
    address = mapping.get_hp_fragment_address()
    run: torch.Tensor = state[key].view(-1).narrow(0, address.start, address.numel)
    return run


def _zero3_state(parameter: nn.Parameter, key: str) -> torch.Tensor | None:
    optimizer = parameter._z3_optimizer  # type: ignore[attr-defined]
    group = optimizer.fp32_partitioned_groups_flat[optimizer.grad_position[optimizer.get_param_id(parameter)][0]]
    if key not in optimizer.optimizer.state.get(group, {}):
        return None
    state: torch.Tensor | None = safe_get_local_optimizer_state(parameter, key)
    return state


def shard_view(
    prunable: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, engine_optimizer: object, rank: int
) -> list[Shard]:
    """List this rank's shards of the prunable weights, after the engine has taken them over.

    Args:
        prunable: Name -> parameter of the wrapped model, in the model's order.
        optimizer: The torch optimizer that was handed to the engine.
        engine_optimizer: DeepSpeed's optimizer around it; the torch one under plain DDP.
        rank: This process's rank.
    """
    shards = []
    for index, (name, parameter) in enumerate(prunable.items()):
        if hasattr(parameter, "ds_id"):
            shape = tuple(parameter.ds_shape)  # type: ignore[attr-defined]
            total = int(torch.Size(shape).numel())
            size = parameter.ds_tensor.ds_numel  # type: ignore[attr-defined]
            start = min(rank * size, total)
            numel, replicated = min(size, total - start), False
        elif hasattr(parameter, "_hp_mapping"):
            mapping = parameter._hp_mapping
            shape, replicated = tuple(parameter.shape), False
            start = mapping.lp_fragment_address.start if mapping is not None else 0
            numel = mapping.lp_fragment_address.numel if mapping is not None else 0
        else:
            shape, start, numel, replicated = tuple(parameter.shape), 0, parameter.numel(), True
        shards.append(Shard(name, index, shape, start, numel, replicated, parameter, optimizer, engine_optimizer))
    return shards
