"""Masked means zero where it counts: fp32 master, low-precision copy and Adam's moments, on every rank.

At a change one collective call masks all of them on the local shards. Between changes a gradient hook (grad * mask)
holds the zeros, with no work after the step: AdamW leaves a weight alone whose value, gradient and moments are 0 (its
decay multiplies 0). Masking ``param.data`` alone would be undone by ZeRO's master at the next step; masking gradients
alone would be undone by the moments.

After a change only what others write is read again, the low-precision copies. Masters and moments need not be: the
change itself makes every place outside the new mask zero, also where it was zero before, in the memory that the
optimizer works on (which is asserted). ``check`` reads everything, at the end of a job and in tests.

A mask may also be in force without being held: weights are zero when it is put on, and may come alive from there.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from typing import Any

import torch

from prunus.configs.artifacts.comparison import overlap
from prunus.configs.artifacts.comparison.overlap import Overlap
from prunus.jobs.engine.gradients import edit_gradient
from prunus.jobs.engine.shards import MOMENTS, Shard, refresh_copies
from prunus.jobs.errors import JobError, PruningError
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity import arithmetic, mask_store
from prunus.jobs.sparsity.arithmetic import Masks

_New = tuple[torch.Tensor, torch.Tensor | None]
"""A new mask of a whole weight, and its packed bits where they are there already."""


class MaskedWeights:
    """The prunable weights of this job and the masks that hold on them.

    Args:
        shards: This rank's runs, every prunable weight once, in the model's order.
        engine_optimizer: DeepSpeed's optimizer, or anything under plain DDP.
        ranks: The gang.
        tapped: The gradients of removed weights are read before they go: no hook masks them, ``mask_gradients`` does.

    Attributes:
        held: Whether gradients are masked, so that what is zero stays zero.
        masks: What is in force; the same tensors for the whole job, overwritten at a change.
        changes: Of each weight, how its mask agrees with the one before the last change.
    """

    def __init__(
        self, shards: Sequence[Shard], engine_optimizer: object, ranks: Ranks, *, tapped: bool = False
    ) -> None:
        self.shards = list(shards)
        self.ranks = ranks
        self._engine_optimizer = engine_optimizer
        self.held = True
        self._hooked = tapped
        self._dead: tuple[str, ...] = MOMENTS
        """Which of Adam's moments are zero outside the mask."""
        self._grad_masks: Masks = {}
        self.masks: Masks = {s.name: torch.ones(s.shape, dtype=torch.bool, device=ranks.device) for s in self.shards}
        whole = [(s.name, s.global_numel) for s in self.shards]
        self.changes = {name: overlap.counted(numel, numel, numel, numel) for name, numel in whole}

    @property
    def num_weights(self) -> int:
        """Prunable weights over all ranks: the denominator of ``sparsity``."""
        return sum(shard.global_numel for shard in self.shards)

    @property
    def sparsity(self) -> float:
        """Share of the prunable weights removed, in [0, 1]."""
        kept = sum(change.kept_second for change in self.changes.values())
        return 1.0 - kept / self.num_weights if self.num_weights else 0.0

    def local_mask_L(self, shard: Shard) -> torch.Tensor:
        """The owned run of a weight's mask, as a view."""
        return self.masks[shard.name].view(-1)[shard.start : shard.start + shard.numel]

    def set_local(
        self,
        keep: Iterable[torch.Tensor],
        *,
        moments: tuple[str, ...] = MOMENTS,
        hold: bool = True,
        hidden: Sequence[torch.Tensor] | None = None,
    ) -> Overlap:
        """Put new masks, given as each rank's runs, into force everywhere (collective).

        Args:
            keep: One bool tensor per shard, in the shards' order; each is put on before the next is asked for.
            moments: As in :meth:`set_masks`.
            hold: As in :meth:`set_masks`.
            hidden: Of each shard the values of removed weights, 0 elsewhere: weights that return take theirs from
                there, those that go leave theirs there. None: what goes is lost, what returns begins at zero.
        """
        whole = (self._whole(s, keep_L) for s, keep_L in zip(self.shards, keep, strict=True))
        return self._put_on(whole, moments, hold, hidden)

    def set_masks(self, masks: Masks, *, moments: tuple[str, ...] = MOMENTS, hold: bool = True) -> Overlap:
        """Put new masks into force everywhere (collective): master, copy, moments, gradient hook; then check.

        Args:
            moments: Which of Adam's moments are zeroed for removed weights. Without a gradient a zero first moment
                alone keeps a weight at zero; the second is then the scale that a weight which returns finds.
            hold: Mask gradients from now on, which needs a dead first moment; False lets every weight move again.
        """
        self._refuse_others(masks)
        return self._put_on(((masks[shard.name], None) for shard in self.shards), moments, hold)

    @property
    def state(self) -> dict[str, Any]:
        """How masks are in force, for a checkpoint beside the masks themselves; plain values."""
        return {"held": self.held, "dead": list(self._dead)}

    def restore(self, masks: Masks, state: dict[str, Any]) -> None:
        """Take up masks of a checkpoint (collective); weights and moments are restored already.

        Args:
            state: As it was when the checkpoint was written. If masks were not held, removed weights may be alive and
                are left so.
        """
        if state["held"]:
            self.set_masks(masks, moments=tuple(state["dead"]))
            return
        self._refuse_others(masks)
        for name, mask in masks.items():
            self._replace(name, mask)
        self._hook_gradients(hold=False)
        self.check()

    def _refuse_others(self, masks: Masks) -> None:
        """PruningError if masks are not of these weights."""
        ours, theirs = ({name: tuple(mask.shape) for name, mask in some.items()} for some in (self.masks, masks))
        if why := overlap.why_other_weights(ours, theirs):
            raise PruningError(why)

    def _put_on(
        self,
        new: Iterable[_New],
        moments: tuple[str, ...],
        hold: bool,
        hidden: Sequence[torch.Tensor] | None = None,
    ) -> Overlap:
        """Weight by weight, so that of one only there are an old and a new mask."""
        assert "exp_avg" in moments or not hold, (
            "a weight with living moments moves without gradients: it cannot be held"
        )
        digest = sha256()
        beside = [None] * len(self.shards) if hidden is None else hidden
        for shard, (mask, packed), hidden_L in zip(self.shards, new, beside, strict=True):
            self._replace(shard.name, mask)
            if self.ranks.world_size > 1:
                packed = arithmetic.pack(self.masks[shard.name]) if packed is None else packed
                digest.update(packed.cpu().numpy().data)
            if shard.numel:
                places = _places(shard, moments)
                arithmetic.clear(places, self.local_mask_L(shard), hidden_L)
                again = _places(shard, moments)
                if [p.data_ptr() for p in places] != [p.data_ptr() for p in again]:
                    raise JobError(f"of {shard.name} a copy of the master or of a moment was masked, not itself")
        refresh_copies(self._engine_optimizer, self.shards)
        self._dead = moments
        self._hook_gradients(hold)
        self._check_copies()
        self._check_ranks(digest.hexdigest())
        return overlap.total(self.changes.values())

    def _replace(self, name: str, mask: torch.Tensor) -> None:
        before = self.changes[name]
        kept, both = arithmetic.replace(self.masks[name], mask.to(self.ranks.device))  # files give them on the CPU
        self.changes[name] = overlap.counted(before.positions, before.kept_second, kept, both)

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
        if self.held:
            for shard in self.shards:
                for i, values_L in enumerate(_places(shard, self._dead) if shard.numel else ()):
                    self._check_outside(shard, values_L, f"moment {i - 1}" if i else "fp32 master")
            self._check_copies()
        self._check_ranks(mask_store.digest(self.masks) if self.ranks.world_size > 1 else "")

    def sparsity_by_weight(self) -> dict[str, float]:
        """Share removed of each weight, in the model's order."""
        return {name: 1.0 - change.kept_second / change.positions for name, change in self.changes.items()}

    def iou_by_weight(self) -> dict[str, float]:
        """IOU of kept positions of each weight with the mask before the last change, in [0, 1]."""
        return {name: change.iou_kept for name, change in self.changes.items()}

    def _check_copies(self) -> None:
        for shard in self.shards:
            copy_L = shard.copy_L() if shard.numel else None
            if copy_L is not None:
                self._check_outside(shard, copy_L, "low-precision copy")

    def _check_outside(self, shard: Shard, values_L: torch.Tensor, place: str) -> None:
        if left := arithmetic.count_outside(values_L, self.local_mask_L(shard)):
            raise JobError(f"{left} weights of {shard.name} are not zero outside the mask in the {place}")

    def _check_ranks(self, digest: str) -> None:
        digests = set(self.ranks.gather(digest))
        if len(digests) != 1:
            raise JobError(f"ranks hold {len(digests)} different masks after a mask update")

    def _whole(self, shard: Shard, keep_L: torch.Tensor) -> _New:
        """Put the ranks' runs of one mask together: bits are disjoint, so packed bytes can be added over ranks."""
        if shard.replicated:
            return keep_L.view(shard.shape), None
        packed = torch.zeros(-(-shard.global_numel // 8), dtype=torch.uint8, device=self.ranks.device)
        own = arithmetic.pack(torch.nn.functional.pad(keep_L, (shard.start % 8, 0)))
        packed[shard.start // 8 :][: own.numel()] = own
        self.ranks.sum(packed)
        return arithmetic.unpack(packed, shard.shape), packed

    def mask_gradients(self) -> None:
        """Zero the step's gradients of removed weights, if masks are held; for ``tapped`` weights alone."""
        for shard in self.shards:
            if shard.name in self._grad_masks and shard.numel:
                edit_gradient(shard, partial(arithmetic.hold, keep_L=self.local_mask_L(shard)))

    def _hook_gradients(self, hold: bool) -> None:
        self.held = hold
        removed = [name for name, change in self.changes.items() if hold and change.kept_second < change.positions]
        self._grad_masks = {name: self.masks[name] for name in removed}
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
            arithmetic.hold(parameter.grad, mask)

    def _hold_passing(self, name: str, grad: torch.Tensor) -> torch.Tensor:
        """Mask a gradient on its way to ZeRO, which takes it before later hooks. A copy: others may share it."""
        mask = self._grad_masks.get(name)
        return grad if mask is None else arithmetic.held(grad, mask)


def _places(shard: Shard, moments: tuple[str, ...]) -> list[torch.Tensor]:
    """The owned run of the master and of these moments: the memory itself."""
    return [shard.master_L(), *shard.moments_L(moments)]
