"""Which clips meet at which optimizer step, and who of the gang gets them: pure functions of seed, step and lengths.

A step's clips do not depend on the number of ranks. They are dealt as evenly as possible to ranks x micro-batches, in
consecutive slices: sorted by length, a slice holds clips of about the same length.
"""

import math
from collections.abc import Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from prunus.jobs.data.pipeline.order import BATCHES_PER_POOL, ByLength, Indices, ShuffledEpochs

Lengths = npt.NDArray[np.int64]


class Plan(Protocol):
    """The clips of each step."""

    def at(self, step: int) -> tuple[Indices, Indices]:
        """Return epochs and numbers of the clips of a step (0-based), over all ranks."""
        ...


class RowsPerStep:
    """So many clips per step, the epochs one after the other."""

    def __init__(self, num_samples_N: Lengths, batch_size: int, seed: int, *, group_by_length: bool) -> None:
        by_length = ByLength(num_samples_N, batch_size) if group_by_length else None
        self._epochs = ShuffledEpochs(len(num_samples_N), seed, by_length)
        self._batch_size = batch_size

    def at(self, step: int) -> tuple[Indices, Indices]:
        """Return epochs and numbers of the clips of a step (0-based)."""
        return self._epochs.locate(range(step * self._batch_size, (step + 1) * self._batch_size))


class SecondsPerStep:
    """So much audio per step, padding included; no step spans two epochs.

    Args:
        num_samples_N: Of each clip; none is longer than ``micro_samples``.
        batch_samples: Clips x longest clip of a step is at most this.
        micro_samples: The same of a micro-batch, of which a step has ``num_micro_batches`` or more.
        num_micro_batches: The least number over all ranks that holds ``batch_samples``.
        seed: Of the order.
        group_by_length: Steps of clips of about the same length.
    """

    def __init__(
        self,
        num_samples_N: Lengths,
        batch_samples: int,
        micro_samples: int,
        num_micro_batches: int,
        seed: int,
        *,
        group_by_length: bool,
    ) -> None:
        assert int(num_samples_N.max()) <= min(batch_samples, micro_samples)
        self._lengths_N = num_samples_N
        self._limits = (batch_samples, micro_samples, num_micro_batches)
        self._seed = seed
        self._pool = len(num_samples_N)
        if group_by_length:
            self._pool = max(1, int(BATCHES_PER_POOL * batch_samples / float(num_samples_N.mean())))
        self._group_by_length = group_by_length
        self._ends: list[int] = []  # steps up to the end of each epoch
        self._latest: tuple[int, list[Indices]] = (-1, [])

    @property
    def steps_of_first_epoch(self) -> int:
        """Steps of epoch 0; the others have about as many."""
        return len(self._epoch(0))

    def at(self, step: int) -> tuple[Indices, Indices]:
        """Return epochs and numbers of the clips of a step (0-based)."""
        while not self._ends or self._ends[-1] <= step:
            batches = self._epoch(len(self._ends))
            self._ends.append((self._ends[-1] if self._ends else 0) + len(batches))
        epoch = int(np.searchsorted(self._ends, step, side="right"))
        indices_B = self._epoch(epoch)[step - (self._ends[epoch - 1] if epoch else 0)]
        return np.full_like(indices_B, epoch), indices_B

    def _epoch(self, epoch: int) -> list[Indices]:
        if self._latest[0] != epoch:
            self._latest = (epoch, self._draw(epoch))
        return self._latest[1]

    def _draw(self, epoch: int) -> list[Indices]:
        rng = np.random.Generator(np.random.PCG64([self._seed, epoch]))
        shuffled_N = rng.permutation(len(self._lengths_N))
        batches: list[Indices] = []
        for start in range(0, len(shuffled_N), self._pool):
            pool = shuffled_N[start : start + self._pool]
            if self._group_by_length:
                pool = pool[np.argsort(self._lengths_N[pool], kind="stable")]
            batches += cut(pool, self._lengths_N[pool].tolist(), *self._limits)
        return [batches[number] for number in rng.permutation(len(batches))]


def cut(
    order_N: Indices, num_samples_N: Iterable[int], batch_samples: int, micro_samples: int, num_micro_batches: int
) -> list[Indices]:
    """Cut clips in this order into batches that are as full as the limits allow."""
    bounds, rows, longest = [0], 0, 0
    for place, length in enumerate(num_samples_N):
        longest = max(longest, length)
        rows += 1
        if rows * longest > batch_samples or rows > num_micro_batches * (micro_samples // longest):
            bounds.append(place)
            rows, longest = 1, length
    return [order_N[start:end] for start, end in zip(bounds, [*bounds[1:], len(order_N)], strict=True)]


def deal(num_rows: int, rank: int, world_size: int, accumulation_steps: int) -> list[range]:
    """Return the places in the step's batch of each of this rank's micro-batches; some may be empty.

    Over all ranks they are the batch, in order; their sizes differ by one at most.
    """
    parts = world_size * accumulation_steps
    bounds = [part * num_rows // parts for part in range(parts + 1)]
    first = rank * accumulation_steps
    return [range(bounds[i], bounds[i + 1]) for i in range(first, first + accumulation_steps)]


def least_micro_batches(batch_seconds: float, micro_batch_seconds: float) -> int:
    """Return how many micro-batches hold a batch; no number of ranks makes fewer (``JobSpec.accumulation_steps``)."""
    return math.ceil(batch_seconds / micro_batch_seconds - 1e-9)
