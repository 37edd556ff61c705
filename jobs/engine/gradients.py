"""The gradient tap: of each owned shard the gradient of the whole step, before a held mask, clipping and the optimizer.

    strategy       where the gradient of the owned run lies at the end of the last backward pass
    ddp, zero0     parameter.grad, averaged over ranks
    zero1, zero2   the optimizer's averaged gradients, one fragment a weight
    zero3          the weight's gradient partition, padded

Averaged over ranks and micro-batches, as the optimizer sees it; under fp16 still times the loss scale, which is divided
out here. A method that learns from the gradients of removed weights (movement, head importance) reads them here; the
mask is put on after that (``sparsity.masked_weights``). Letter: L elements of a local run.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from deepspeed.utils import safe_get_local_grad, safe_set_local_grad

from prunus.jobs.engine.shards import Shard
from prunus.jobs.ranks import Ranks


def gradient_L(shard: Shard) -> torch.Tensor:
    """The step's gradient of the owned run in fp32, shape (numel,); zeros for a weight without a part in the loss.

    May be the optimizer's own memory: read it, do not write to it.
    """
    own = _own_gradient_L(shard)
    if own is None:
        return torch.zeros(shard.numel, dtype=torch.float32, device=shard.parameter.device)
    scale = float(getattr(shard.engine_optimizer, "loss_scale", 1.0))
    return own.float() if scale == 1.0 else own.float() / scale


def edit_gradient(shard: Shard, edit: Callable[[torch.Tensor], None]) -> None:
    """Change the step's gradient of the owned run where the optimizer reads it.

    Args:
        edit: Gets the run, shape (numel,), in whatever dtype it has and still times the loss scale; writes in place.
    """
    own = _own_gradient_L(shard)
    if own is None:
        return
    if not hasattr(shard.parameter, "ds_id"):
        edit(own)
        return
    whole: torch.Tensor = safe_get_local_grad(shard.parameter)  # in bf16 and fp16 a copy in fp32
    edit(whole.view(-1)[: shard.numel])
    safe_set_local_grad(shard.parameter, whole)


def overflowed(shards: Sequence[Shard], ranks: Ranks) -> bool:
    """Whether a gradient of these weights is beyond fp16: the optimizer will leave this step out (collective)."""
    if not shards or getattr(shards[0].engine_optimizer, "dtype", None) is not torch.float16:
        return False
    finite = all(bool(gradient_L(shard).isfinite().all()) for shard in shards if shard.numel)
    return not all(ranks.gather(finite))


def _own_gradient_L(shard: Shard) -> torch.Tensor | None:
    parameter: Any = shard.parameter
    if shard.numel == 0:
        return None
    if hasattr(parameter, "ds_id"):
        whole: torch.Tensor = safe_get_local_grad(parameter)
        return whole.view(-1)[: shard.numel]
    if not hasattr(parameter, "_hp_mapping"):
        return None if parameter.grad is None else parameter.grad.view(-1)
    fragment: torch.Tensor = parameter._hp_mapping.get_lp_grad_fragment(parameter._index_in_param_group)
    if fragment.numel() != shard.numel:  # of the whole weight, on each rank
        fragment = fragment.view(-1)[shard.start : shard.start + shard.numel]
    return fragment.view(-1)
