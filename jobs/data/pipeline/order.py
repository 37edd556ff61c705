"""Which sequence stands where: pure functions of seed, step and place in the gang. No tensors, no files.

The train split is read as an endless row of positions: epoch after epoch, each a permutation of its own. The global
batch of step s is positions ``s * batch_size ..``; the ranks cut it into consecutive slices. So the same sequences
meet at a step whatever the number of ranks, and a step number is all that a resume needs.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

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


BATCHES_PER_POOL = 50
"""Grouping by length sorts so many batches' worth of shuffled sequences at a time: enough to lose the padding, few
enough that a batch is still drawn from a random part of the split."""


@dataclass(frozen=True)
class ByLength:
    """Group sequences of about the same length into a global batch, so that little of it is padding.

    Attributes:
        lengths_N: Tokens of each sequence.
        batch_size: Sequences per optimizer step over all ranks.
    """

    lengths_N: npt.NDArray[np.integer[Any]]
    batch_size: int

    def group(self, shuffled_N: npt.NDArray[np.uint32], first: int, rng: np.random.Generator) -> npt.NDArray[np.uint32]:
        """Return ``shuffled_N`` in another order: pools sorted by length, cut into batches, the batches shuffled.

        ``first`` is the place of the epoch's first sequence in its global batch. What belongs to a batch with another
        epoch in it stays as shuffled.
        """
        lead = min(-first % self.batch_size, len(shuffled_N))
        num_batches = (len(shuffled_N) - lead) // self.batch_size
        end = lead + num_batches * self.batch_size
        if num_batches == 0:
            return shuffled_N
        pool = BATCHES_PER_POOL * self.batch_size
        pools = (shuffled_N[start : min(start + pool, end)] for start in range(lead, end, pool))
        ordered = np.concatenate([p[np.argsort(self.lengths_N[p], kind="stable")] for p in pools])
        batches = rng.permutation(ordered.reshape(num_batches, self.batch_size))
        return np.concatenate([shuffled_N[:lead], batches.reshape(-1), shuffled_N[end:]])


class ShuffledEpochs:
    """Position -> (epoch, sequence index). The permutations of the two latest epochs are kept in memory."""

    def __init__(self, num_sequences: int, seed: int, by_length: ByLength | None = None) -> None:
        assert num_sequences > 0
        self.num_sequences = num_sequences
        self._seed = seed
        self._by_length = by_length
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
            rng = np.random.Generator(np.random.PCG64([self._seed, epoch]))
            rng.shuffle(permutation)
            if self._by_length is not None:
                permutation = self._by_length.group(permutation, epoch * self.num_sequences, rng)
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
