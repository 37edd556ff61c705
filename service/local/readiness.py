"""Waits until all parts that were started answer. Ray is started once more, or twice, where it ends itself."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from prunus.service.errors import StartFailed
from prunus.service.local.parts import answers, tail
from prunus.service.local.processes import is_alive
from prunus.service.local.state import PartName, UpState

READY_TIMEOUT_S = 240.0
"""A cold start on a loaded two-core machine takes about a minute."""
_LOOK_S = 0.2
_SECOND_TRIES: dict[PartName, int] = {"ray": 2}
"""Ray ends itself where its node is not registered after a fixed 30 s, which a busy machine may miss."""

Say = Callable[[str], None]


def wait_ready(
    home: Path, state: UpState, started: Sequence[PartName], say: Say, restart: Callable[[UpState, PartName], UpState]
) -> UpState:
    """Look again and again until every started part answers.

    Args:
        restart: Starts a part that ended once more; gives the new state.

    Raises:
        StartFailed: A part ended, or does not answer in time; with the end of its log.
    """
    begun = time.monotonic()
    waiting = list(started)
    tries = dict(_SECOND_TRIES)

    def look() -> bool:
        nonlocal state
        for name in list(waiting):
            part = state.parts[name]
            if not is_alive(part.process):
                ended = f"{name} ended while it started; the end of {part.log}:\n{tail(Path(part.log))}"
                if not tries.get(name):
                    raise StartFailed(ended)
                tries[name] -= 1
                say(f"{ended}\nstarting {name} again")
                state = restart(state, name)
            elif answers(home, name, part.url):
                waiting.remove(name)
                say(f"{name} answers at {part.url} after {time.monotonic() - begun:.0f} s")
        return not waiting

    try:
        Retrying(
            retry=retry_if_result(lambda all_answer: not all_answer),
            stop=stop_after_delay(READY_TIMEOUT_S),
            wait=wait_fixed(_LOOK_S),
        )(look)
    except RetryError as error:
        part = state.parts[waiting[0]]
        raise StartFailed(
            f"{waiting[0]} does not answer at {part.url} after {READY_TIMEOUT_S:.0f} s; the end of {part.log}:\n"
            f"{tail(Path(part.log))}"
        ) from error
    return state
