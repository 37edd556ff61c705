"""The clock of the poll loops, and how long a silent server is endured."""

import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_fixed

from prunus.service.errors import Unreachable

POLL_S = 1.0
"""Seconds between two looks."""

PATIENCE_S = 120.0
"""Seconds of silence of the server that are endured."""

Answer = TypeVar("Answer")

Tell = Callable[[str], None]


def now() -> float:
    """Seconds of a clock that only moves on."""
    return time.monotonic()


def pause(seconds: float) -> None:
    """Wait before the next look."""
    time.sleep(seconds)


def patiently(ask: Callable[[], Answer], tell: Tell, poll_s: float) -> Answer:
    """Ask again and again while the server is silent.

    Args:
        tell: Called with one line when the server is silent, and when it is back.
        poll_s: Seconds between two questions.

    Raises:
        Unreachable: The server was silent for longer than ``PATIENCE_S``.
    """
    began = now()

    def tell_once(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            tell(f"{state.outcome.exception()}; jobs go on meanwhile, looking again for {PATIENCE_S:.0f} s")

    asking = Retrying(
        retry=retry_if_exception_type(Unreachable),
        stop=lambda _: now() - began > PATIENCE_S,
        wait=wait_fixed(poll_s),
        sleep=pause,
        before_sleep=tell_once,
        reraise=True,
    )
    answer = asking(ask)
    if asking.statistics["attempt_number"] > 1:
        tell("the server answers again")
    return answer
