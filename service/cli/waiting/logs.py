"""Copy the log of a job, and wait for more of it."""

from collections.abc import Callable

from prunus.service.cli.waiting.patience import POLL_S, Tell, patiently, pause
from prunus.service.client import Client
from prunus.service.errors import NotFound
from prunus.service.wire import DRIVER

_TAIL_BYTES = 16_384


def stream_log(
    client: Client,
    ref: str,
    write: Callable[[bytes], object],
    tell: Tell,
    *,
    rank: int | None = None,
    attempt: int | None = None,
    keep_on: bool = False,
    poll_s: float = POLL_S,
) -> None:
    """Copy a log piece by piece, in constant memory.

    Args:
        write: Takes the bytes in order.
        rank: Whose log; None for rank 0's (the driver's, if no rank ever wrote), ``DRIVER`` for the driver's.
        keep_on: Wait for more until the attempt has ended.
    """
    offset = 0
    while True:
        start = offset
        chunk = patiently(lambda start=start: client.log(ref, rank, attempt, start), tell, poll_s)  # type: ignore[misc]
        write(chunk.data)
        moved, offset = chunk.next_offset > offset, chunk.next_offset
        if chunk.ended or (not moved and not keep_on):
            return
        if not moved:
            pause(poll_s)


def end_of_log(client: Client, ref: str, lines: int) -> str:
    """Return the last lines of the driver's log, reading it in constant memory."""
    kept = b""

    def keep(data: bytes) -> None:
        nonlocal kept
        kept = (kept + data)[-_TAIL_BYTES:]

    try:
        stream_log(client, ref, keep, lambda _: None, rank=DRIVER)
    except NotFound:
        return ""
    return "\n".join(kept.decode(errors="replace").splitlines()[-lines:])
