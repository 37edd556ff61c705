"""Progress for people and for the scheduler: ``progress.json``, written by rank 0, atomically, every second or two
while steps are made, every few seconds in between.
"""

import contextlib
import math
import threading
import time
from pathlib import Path

from prunus.configs import Progress
from prunus.configs.artifacts.atomic_write import write_atomic

_EVERY_S = 1.0
_HEARTBEAT_S = 5.0
"""In a phase without steps (tokenising, evaluating, saving)."""


class Reporter:
    """Heartbeat and progress of one attempt.

    Args:
        path: ``attempts/<n>/progress.json``; None on ranks other than 0.
        attempt_id: Id of the attempt.
    """

    def __init__(self, path: Path | None, attempt_id: str) -> None:
        self._path, self._attempt_id = path, attempt_id
        self._written = 0.0
        self._began: tuple[float, int] | None = None
        self._metrics: dict[str, float] = {}
        self._step, self._num_steps = 0, None  # type: tuple[int, int | None]
        self._phase = "starting"
        self._lock = threading.Lock()
        self._closed = threading.Event()
        if path is not None:
            threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def close(self) -> None:
        """No sign of life after this."""
        self._closed.set()

    def _beat(self) -> None:
        while not self._closed.wait(_HEARTBEAT_S):
            # A disk that is full for a moment must not end the heartbeat; the loop's own writes tell about it.
            with contextlib.suppress(OSError), self._lock:
                if not self._closed.is_set() and time.time() - self._written >= _HEARTBEAT_S:
                    self._write(self._phase, force=True)

    def phase(self, name: str) -> None:
        """Enter a phase (starting, data, training, evaluating, saving, publishing)."""
        with self._lock:
            self._write(name, force=True)

    def step(self, step: int, num_steps: int, metrics: dict[str, float]) -> None:
        """``step`` of ``num_steps`` optimizer steps are done."""
        with self._lock:
            if self._began is None:
                self._began = (time.monotonic(), step)
            self._step, self._num_steps = step, num_steps
            # JSON knows no NaN: a record with one could not be read back, and the attempt would look dead.
            self._metrics.update({name: value for name, value in metrics.items() if math.isfinite(value)})
            self._write("training", force=step == num_steps)

    def _eta_s(self) -> float | None:
        if self._began is None or self._num_steps is None or self._step <= self._began[1]:
            return None
        pace_s = (time.monotonic() - self._began[0]) / (self._step - self._began[1])
        return pace_s * (self._num_steps - self._step)

    def _write(self, phase: str, force: bool) -> None:
        now = time.time()
        if self._path is None or (not force and now - self._written < _EVERY_S):
            return
        self._written, self._phase = now, phase
        progress = Progress(
            attempt_id=self._attempt_id,
            time=now,
            phase=phase,
            step=self._step,
            num_steps=self._num_steps,
            eta_s=self._eta_s(),
            metrics=self._metrics,
        )
        write_atomic(self._path, progress.model_dump_json())
