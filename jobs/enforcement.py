"""Masked means zero where it counts: fp32 master, low-precision copy and Adam's moments, on every rank.

At a change one collective call masks all of them on the local shards. Between changes a gradient hook (grad * mask)
holds the zeros, with no work after the step: AdamW leaves a weight alone whose value, gradient and moments are 0 (its
decay multiplies 0). Masking ``param.data`` alone would be undone by ZeRO's master at the next step; masking gradients
alone would be undone by the moments.

A mask may also be in force without being held: weights are zero when it is put on, and may come alive from there.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch

from jobs import masks as masks_module
from jobs import overlap
from jobs.errors import JobError
from jobs.masks import Masks
from jobs.overlap import Overlap
from jobs.ranks import Ranks
from jobs.shards import Shard, refresh_copies


class MaskedWeights:
    """The prunable weights of this job and the masks that hold on them.

    Args:
        shards: This rank's runs, every prunable weight once, in the model's order.
        engine_optimizer: DeepSpeed's optimizer, or anything under plain DDP.
        ranks: The gang.

    Attributes:
        held: Whether gradients are masked, so that what is zero stays zero.
    """

    def __init__(self, shards: Sequence[Shard], engine_optimizer: object, ranks: Ranks) -> None:
        self.shards = list(shards)
        self.ranks = ranks
        self._engine_optimizer = engine_optimizer
        self.held = True
        self._hooked = False
        self._grad_masks: Masks = {}
        self.masks: Masks = {s.name: torch.ones(s.shape, dtype=torch.bool, device=ranks.device) for s in self.shards}

    @property
    def num_weights(self) -> int:
        """Prunable weights over all ranks: the denominator of ``sparsity``."""
        return sum(shard.global_numel for shard in self.shards)

    @property
    def sparsity(self) -> float:
        """Share of the prunable weights removed, in [0, 1]."""
        return masks_module.sparsity(self.masks)

    def local_mask_L(self, shard: Shard) -> torch.Tensor:
        """The owned run of a weight's mask, as a view."""
        return self.masks[shard.name].view(-1)[shard.start : shard.start + shard.numel]

    def set_local(self, keep: Sequence[torch.Tensor], *, moments: bool = True, hold: bool = True) -> Overlap:
        """Put new masks, given as each rank's runs, into force everywhere (collective).

        Args:
            keep: One bool tensor per shard, in the shards' order.
            moments: As in :meth:`set_masks`.
            hold: As in :meth:`set_masks`.
        """
        whole = {s.name: self._whole(s, k) for s, k in zip(self.shards, keep, strict=True)}
        return self.set_masks(whole, moments=moments, hold=hold)

    def set_masks(self, masks: Masks, *, moments: bool = True, hold: bool = True) -> Overlap:
        """Put new masks into force everywhere (collective): master, copy, moments, gradient hook; then check.

        Args:
            moments: Zero Adam's moments of removed weights; False leaves them as they are.
            hold: Mask gradients from now on, which needs dead moments; False lets every weight move again.
        """
        assert moments or not hold, "a weight with living moments moves without gradients: it cannot be held"
        masks = {name: mask.to(self.ranks.device) for name, mask in masks.items()}  # files give them on the CPU
        change = overlap.compare(self.masks, masks)
        self.masks = masks
        for shard in self.shards:
            if shard.numel:
                local_L = self.local_mask_L(shard)
                for values_L in (shard.master_L(), *(shard.moments_L() if moments else ())):
                    masks_module.hold(values_L, local_L)
        refresh_copies(self._engine_optimizer, self.shards)
        self._hook_gradients(hold)
        self.check()
        return change

    def restore(self, masks: Masks, held: bool) -> None:
        """Take up masks of a checkpoint (collective); weights and moments are restored already.

        Args:
            held: As it was when the checkpoint was written. If not, removed weights may be alive and are left so.
        """
        if held:
            self.set_masks(masks)
            return
        overlap.refuse_others(self.masks, masks)
        self.masks = {name: mask.to(self.ranks.device) for name, mask in masks.items()}
        self._hook_gradients(hold=False)
        self.check()

    @contextmanager
    def masked(self) -> Iterator[None]:
        """Evaluate as if removed weights were zero: in master and copy, put back bit by bit at the end (collective).

        No training inside. After an exception masters are put back, copies are not: other ranks may not come along.
        """
        if self.held:
            yield  # they are zero
            return
        gone = [~self.local_mask_L(shard) for shard in self.shards]
        values = [shard.master_L()[gone_L] for shard, gone_L in zip(self.shards, gone, strict=True)]
        for shard, gone_L in zip(self.shards, gone, strict=True):
            shard.master_L()[gone_L] = 0.0
        refresh_copies(self._engine_optimizer, self.shards)
        try:
            yield
        finally:
            for shard, gone_L, value_R in zip(self.shards, gone, values, strict=True):
                shard.master_L()[gone_L] = value_R
        refresh_copies(self._engine_optimizer, self.shards)

    def check(self) -> None:
        """Assert that nothing is left outside held masks, and that all ranks hold the same masks (collective).

        Raises:
            JobError: A weight, copy or moment outside its held mask is not zero, or ranks differ: a defect of ours.
        """
        for shard in self.shards if self.held else ():
            if not shard.numel:
                continue
            local_L, copy_L = self.local_mask_L(shard), shard.copy_L()
            places = {"fp32 master": shard.master_L(), **({} if copy_L is None else {"low-precision copy": copy_L})}
            places |= {f"moment {i}": moment_L for i, moment_L in enumerate(shard.moments_L())}
            for place, values_L in places.items():
                if left := masks_module.count_outside(values_L, local_L):
                    raise JobError(f"{left} weights of {shard.name} are not zero outside the mask in the {place}")
        digests = set(self.ranks.gather(masks_module.digest(self.masks)))
        if len(digests) != 1:
            raise JobError(f"ranks hold {len(digests)} different masks after a mask update")

    def sparsity_by_weight(self) -> dict[str, float]:
        """Share removed of each weight, in the model's order."""
        return {name: 1.0 - masks_module.num_kept(mask) / mask.numel() for name, mask in self.masks.items()}

    def iou_by_weight(self, before: Masks) -> dict[str, float]:
        """IOU of kept positions of each weight with an earlier mask, in [0, 1]."""
        return {name: one.iou_kept for name, one in overlap.by_weight(before, self.masks).items()}

    def _whole(self, shard: Shard, keep_L: torch.Tensor) -> torch.Tensor:
        """Put the ranks' runs of one mask together: bits are disjoint, so packed bytes can be added over ranks."""
        if shard.replicated:
            return keep_L.view(shard.shape).clone()
        whole = torch.zeros(shard.global_numel, dtype=torch.bool, device=self.ranks.device)
        whole[shard.start : shard.start + shard.numel] = keep_L
        return masks_module.unpack(self.ranks.sum(masks_module.pack(whole)), shard.shape)

    def _hook_gradients(self, hold: bool) -> None:
        self.held = hold
        held = self.masks if hold else {}
        self._grad_masks = {name: mask for name, mask in held.items() if masks_module.num_kept(mask) < mask.numel()}
        if self._hooked or not hold:
            return
        self._hooked = True
        for shard in self.shards:
            if shard.replicated:
                own = partial(self._hold_own, shard.name)
                shard.parameter.register_post_accumulate_grad_hook(own)  # type: ignore[no-untyped-call]
            else:
                hook = partial(self._hold_passing, shard.name)
                shard.parameter.register_hook(hook)  # type: ignore[no-untyped-call]

    def _hold_own(self, name: str, parameter: torch.Tensor) -> None:
        """Mask ``parameter.grad`` in place, before DDP adds it over ranks; it is the parameter's own: no copy."""
        mask = self._grad_masks.get(name)
        if mask is not None and parameter.grad is not None:
            masks_module.hold(parameter.grad, mask)

    def _hold_passing(self, name: str, grad: torch.Tensor) -> torch.Tensor:
        """Mask a gradient on its way to ZeRO, which takes it before later hooks. A copy: others may share it."""
        mask = self._grad_masks.get(name)
        return grad if mask is None else masks_module.held(grad, mask)
