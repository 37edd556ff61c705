"""Training batches from a stream: a split larger than the disk, read as often as the steps ask.

Every rank reads the same rows and keeps those of its own slice, so the global batches are the same for any number of
ranks; the price is that each rank packs the whole stream (masked_lm; labelled rows are only tokenised where used).

::

    epoch ──> window of SHUFFLE_ROWS rows ──> items (packed sequences or labelled rows) ──> permuted by
              (in the order of the split)                                                   (seed, epoch, window)

Shuffling is within a window only: shuffle the files beforehand if they are sorted. The position is the start of the
current window (a position in the split, and for masked_lm the tokens that no sequence has taken yet) and the number
of items used since; so a resume repeats nothing and skips nothing, and reads at most one window again.
"""

from copy import deepcopy
from itertools import islice
from typing import Any, Protocol

import numpy as np

from prunus.jobs.data.pipeline.batches import Batch, StepBatches
from prunus.jobs.data.pipeline.order import Layout
from prunus.jobs.data.pipeline.rows import Rows
from prunus.jobs.errors import DataError

SHUFFLE_ROWS = 4096
"""Rows that are shuffled among each other."""


class Stage(Protocol):
    """Turns windows of rows into items, and items into batches."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns it reads."""
        ...

    def start(self, state: dict[str, Any]) -> None:
        """Begin an epoch ({}), or go back to a position of :meth:`state`."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what is carried from one window to the next."""
        ...

    def items(self, rows: list[dict[str, Any]], first_row: int) -> list[Any]:
        """Return the items of the next window, in order; ``first_row`` counts from 1, for messages."""
        ...

    def collate(self, items: list[tuple[int, int, Any]]) -> Batch:
        """Return (epoch, number of the item in its epoch, item) as a batch."""
        ...


class StreamedBatches(StepBatches):
    """Batches of a stream: at(0), at(1), ... in order are cheap; any other step re-reads from the start.

    Args:
        rows: The train split.
        stage: Turns rows into batches.
        layout: How a global batch is cut.
        seed: Of the shuffling.
    """

    def __init__(self, rows: Rows, stage: Stage, layout: Layout, seed: int) -> None:
        self._layout = layout
        self._seed = seed
        self._next_step = 0
        self._items = _Items(rows, stage, seed)

    def at(self, step: int) -> list[Batch]:
        """Return this rank's micro-batches of a step (0-based).

        Raises:
            DataError: The split cannot be read or holds nothing to learn from.
        """
        self._seek(step)
        micro_batches = self._layout.micro_batches(0)
        mine = range(micro_batches[0].start, micro_batches[-1].stop)
        items = self._items.take(self._layout.batch_size, keep=mine)
        self._next_step += 1
        size = len(micro_batches[0])
        return [self._items.stage.collate(items[start : start + size]) for start in range(0, len(items), size)]

    def _seek(self, step: int) -> None:
        if step < self._next_step:
            self._items.restart({})
            self._next_step = 0
        while self._next_step < step:
            self._items.take(self._layout.batch_size, keep=range(0))
            self._next_step += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the latest step, as plain numbers, lists and strings."""
        return {"next_step": self._next_step, "items": self._items.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at a position of :meth:`state_dict`, of any rank and any number of ranks."""
        if state:
            self._items.restart(state["items"])
            self._next_step = state["next_step"]


class _Items:
    """The endless row of items, from a position on."""

    def __init__(self, rows: Rows, stage: Stage, seed: int) -> None:
        self._rows = rows
        self.stage = stage
        self._seed = seed
        self.restart({})

    def restart(self, state: dict[str, Any]) -> None:
        """Go to a position of :meth:`state`, or to the start."""
        self._begin_epoch(state.get("epoch", 0), state)
        self._ready: list[tuple[int, int, Any]] = []
        self._at_window = {**self._here(), "used": 0}
        if state:
            self._fill()
            del self._ready[: state["used"]]
            self._at_window["used"] = state["used"]

    def state(self) -> dict[str, Any]:
        """Return the start of the current window and the number of items used of it."""
        return deepcopy(self._at_window)

    def take(self, count: int, keep: range) -> list[tuple[int, int, Any]]:
        """Use up the next ``count`` items; return those whose place among them is in ``keep``."""
        kept: list[tuple[int, int, Any]] = []
        place = 0
        while place < count:
            if not self._ready:
                self._fill()
            part = self._ready[: count - place]
            kept += [item for number, item in enumerate(part, place) if number in keep]
            del self._ready[: len(part)]
            self._at_window["used"] += len(part)
            place += len(part)
        return kept

    def _here(self) -> dict[str, Any]:
        return {
            "epoch": self._epoch,
            "window": self._window,
            "first_row": self._first_row,
            "num_items": self._num_items,
            "stage": self.stage.state(),
            "stream": deepcopy(self._opened.state_dict()),
        }

    def _begin_epoch(self, epoch: int, state: dict[str, Any]) -> None:
        self._epoch = epoch
        self._window = state.get("window", 0)
        self._first_row = state.get("first_row", 1)
        self._num_items = state.get("num_items", 0)
        self.stage.start(state.get("stage", {}))
        self._opened = self._rows.open()
        if state:
            self._opened.load_state_dict(deepcopy(state["stream"]))
        # Only a start checks columns and emptiness: a position may be the end of the split.
        self._stream = self._rows.read(self.stage.columns, self._opened, resumed=bool(state))

    def _fill(self) -> None:
        """Read windows until one gives items; at the end of the split go on with the next epoch."""
        while not self._ready:
            self._at_window = {**self._here(), "used": 0}
            rows = list(islice(self._stream, SHUFFLE_ROWS))
            if not rows:
                if self._num_items == 0:
                    raise DataError(
                        f"{self._rows.name}: {self._first_row - 1} rows make no full sequence; give more text or a "
                        f"smaller sequence_length"
                    )
                self._begin_epoch(self._epoch + 1, {})
                continue
            items = self.stage.items(rows, self._first_row)
            order = np.random.Generator(np.random.PCG64([self._seed, self._epoch, self._window])).permutation(
                len(items)
            )
            self._ready = [(self._epoch, self._num_items + int(place), items[place]) for place in order]
            self._window += 1
            self._first_row += len(rows)
            self._num_items += len(items)
