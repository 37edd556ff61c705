"""Which sequence stands where: pure functions of seed, step and place in the gang. No tensors, no files.

The train split is read as an endless row of positions: epoch after epoch, each a permutation of its own. The global
batch of step s is positions ``s * batch_size ..``; the ranks cut it into consecutive slices. So the same sequences
meet at a step whatever the number of ranks, and a step number is all that a resume needs.
"""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """How a global batch is cut.

    Attributes:
        batch_size: Sequences per optimizer step over all ranks.
        accumulation_steps: Micro-batches per rank and step.
        rank: This rank.
        world_size: All ranks.
    """

    batch_size: int
    accumulation_steps: int
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        assert self.batch_size % (self.accumulation_steps * self.world_size) == 0, self
        assert 0 <= self.rank < self.world_size, self

    def micro_batches(self, step: int) -> list[range]:
        """Return the positions of this rank's micro-batches of a step (0-based)."""
        size = self.batch_size // (self.accumulation_steps * self.world_size)
        start = step * self.batch_size + self.rank * self.accumulation_steps * size
        return [range(start + j * size, start + (j + 1) * size) for j in range(self.accumulation_steps)]


class ShuffledEpochs:
    """Position -> (epoch, sequence index). The permutations of the two latest epochs are kept in memory."""

    def __init__(self, num_sequences: int, seed: int) -> None:
        assert num_sequences > 0
        self.num_sequences = num_sequences
        self._seed = seed
        self._permutations: OrderedDict[int, npt.NDArray[np.uint32]] = OrderedDict()

    def locate(self, positions: range) -> tuple[Indices, Indices]:
        """Return epochs and sequence indices of these positions."""
        epochs, offsets = np.divmod(np.asarray(positions, dtype=np.int64), self.num_sequences)
        indices = np.empty_like(offsets)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            indices[here] = self._permutation(int(epoch))[offsets[here]]
        return epochs, indices

    def _permutation(self, epoch: int) -> npt.NDArray[np.uint32]:
        if epoch not in self._permutations:
            permutation = np.arange(self.num_sequences, dtype=np.uint32)
            np.random.Generator(np.random.PCG64([self._seed, epoch])).shuffle(permutation)
            self._permutations[epoch] = permutation
            while len(self._permutations) > 2:
                self._permutations.popitem(last=False)
        return self._permutations[epoch]


def eval_share(num_rows: int, rank: int, world_size: int) -> tuple[Indices, npt.NDArray[np.float32]]:
    """Return this rank's rows of an eval split and their weights.

    Every rank gets equally many; weight 0 marks rows that only fill up (they repeat the last row).
    """
    each = -(-num_rows // world_size)
    rows = rank + world_size * np.arange(each, dtype=np.int64)
    return np.minimum(rows, num_rows - 1), (rows < num_rows).astype(np.float32)
