"""Pattern lock: the zeros of a sparse checkpoint stay zero while the rest is trained.

Source: Zafrir et al., "Prune Once for All" (arXiv 2111.05754), section 3.3. Mask m = [w != 0] of the starting
checkpoint, constant.
Differs from the paper: the stored training mask is preferred to the zeros of the weights, so that a kept weight that
happens to be 0 stays trainable; and the mask is held by gradients (``sparsity.masked_weights``), not by a product in
every forward pass.
"""

import torch

from prunus.configs.methods.locked import Locked
from prunus.configs.values.wording import listed
from prunus.jobs.errors import PruningError
from prunus.jobs.methods.base import Method
from prunus.jobs.sparsity.arithmetic import Masks


class LockedMethod(Method[Locked]):
    """Keep the given mask, or the zeros of the starting weights."""

    def first_masks(self) -> None:
        given = self.start.given_mask
        if given is not None:
            self.weights.set_masks(given)
        else:
            self.weights.set_local([shard.master_L() != 0 for shard in self.weights.shards])
        if self.weights.sparsity == 0.0:
            raise PruningError(
                "method locked found no zero in the starting weights: there is no pattern to keep; start from a sparse "
                "checkpoint, give method.mask, or use method dense"
            )


def fit_mask(mask: Masks, shapes: dict[str, tuple[int, ...]], origin: str) -> Masks:
    """Check that a mask belongs to these weights and put it into their order; weights it does not name are kept whole.

    Raises:
        PruningError: Nothing matches, a shape differs, or it removes from a weight that is not among these.
    """
    known = mask.keys() & shapes.keys()
    if not known:
        raise PruningError(
            f"the mask of {origin} names none of this model's prunable weights (mask: {listed(sorted(mask))}; model: "
            f"{listed(sorted(shapes))}); use a mask of the same architecture"
        )
    for name in sorted(known):
        if tuple(mask[name].shape) != shapes[name]:
            raise PruningError(
                f"the mask of {origin} has shape {tuple(mask[name].shape)} for {name}, the model has {shapes[name]}; "
                "use a mask of the same architecture"
            )
    if others := [name for name in mask if name not in shapes and not bool(mask[name].all())]:
        raise PruningError(
            f"the mask of {origin} also removes from {len(others)} weights that method.prunable leaves out "
            f"({listed(sorted(others))}); take them in (for biases: prunable: {{biases: true}}), or use another mask"
        )
    return {name: mask.get(name, torch.ones(shape, dtype=torch.bool)) for name, shape in shapes.items()}
