"""Clips as the micro-batches of a step, and as evaluation batches."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from prunus.jobs.data.pipeline.batches import EVAL_EPOCH, Batch, EvalBatches, StepBatches
from prunus.jobs.data.speech.batches.collator import Collator
from prunus.jobs.data.speech.batches.plan import Plan, deal
from prunus.jobs.ranks import Ranks


class SpeechBatches(StepBatches):
    """Training batches: a pure function of (seed, step).

    Args:
        collator: Of the train split.
        plan: Which clips meet at a step.
        ranks: This rank.
        accumulation_steps: Micro-batches per rank and step.
        ahead: Prepare the next step while one is computed.
    """

    def __init__(self, collator: Collator, plan: Plan, ranks: Ranks, accumulation_steps: int, *, ahead: bool) -> None:
        self._collator = collator
        self._plan = plan
        self._ranks = ranks
        self._accumulation_steps = accumulation_steps
        self._pool = ThreadPoolExecutor(1) if ahead else None
        self._next: tuple[int, Future[list[Batch]]] | None = None

    def at(self, step: int) -> list[Batch]:
        """Return this rank's micro-batches of a step (0-based)."""
        if self._pool is None:
            return self._make(step)
        if self._next is None or self._next[0] != step:
            self._next = (step, self._pool.submit(self._make, step))
        batches = self._next[1].result()
        self._next = (step + 1, self._pool.submit(self._make, step + 1))
        return batches

    def _make(self, step: int) -> list[Batch]:
        epochs_G, indices_G = self._plan.at(step)
        lengths_G = self._collator.clips.num_samples_N[indices_G]
        pad_to = 0 if self._collator.inputs.sees_padding else int(lengths_G.max())
        shortest = int(lengths_G.argmin())
        batches = []
        for places in deal(len(indices_G), self._ranks.rank, self._ranks.world_size, self._accumulation_steps):
            # Engines want every micro-batch: where no clip is left for one, the shortest is repeated and not counted.
            rows_B = np.asarray(places if len(places) else [shortest], dtype=np.int64)
            weights_B = np.full(len(rows_B), float(len(places) > 0), dtype=np.float32)
            batches.append(self._collator.batch(indices_G[rows_B], epochs_G[rows_B], weights_B, pad_to))
        return batches


class SpeechEvalBatches(EvalBatches):
    """This rank's share of the held-out clips, longest first, equally many batches on every rank.

    Args:
        collator: Of the eval split.
        max_rows: Clips of a batch.
        max_samples: Clips x longest clip of a batch; a longer clip stands alone.
        ranks: This rank.
    """

    def __init__(self, collator: Collator, max_rows: int, max_samples: int, ranks: Ranks) -> None:
        lengths_N = collator.clips.num_samples_N
        self.num_rows = len(lengths_N)
        self._collator = collator
        order_N = np.argsort(-lengths_N, kind="stable")
        each = -(-self.num_rows // ranks.world_size)
        places = ranks.rank + ranks.world_size * np.arange(each)
        self._rows = order_N[np.minimum(places, self.num_rows - 1)]
        self._weights = (places < self.num_rows).astype(np.float32)
        # Rank 0 has the longest of each round: cut by its clips, so that all ranks cut alike.
        longest = lengths_N[order_N[:: ranks.world_size]].tolist()
        self._bounds = [0]
        for place in range(1, each):
            rows = place + 1 - self._bounds[-1]
            if rows > max_rows or rows * longest[self._bounds[-1]] > max_samples:
                self._bounds.append(place)
        self._bounds.append(each)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __iter__(self) -> Iterator[Batch]:
        for start, end in zip(self._bounds, self._bounds[1:], strict=False):
            rows_B = self._rows[start:end]
            yield self._collator.batch(rows_B, np.full_like(rows_B, EVAL_EPOCH), self._weights[start:end])
