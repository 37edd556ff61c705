"""Ranks of a gang as threads of one process: selection and commits run as on several ranks, without a process group."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from prunus.jobs.ranks import Ranks

T = TypeVar("T")
CPU = torch.device("cpu")


class Meeting:
    """Where threads leave one value each and read all of them; an exception of one breaks it for all."""

    def __init__(self, world_size: int) -> None:
        self.barrier = threading.Barrier(world_size, timeout=20)
        self.values: list[Any] = [None] * world_size

    def exchange(self, rank: int, value: Any) -> list[Any]:
        """Give ``value``, get everyone's in order of rank."""
        self.values[rank] = value
        self.barrier.wait()
        values = list(self.values)
        self.barrier.wait()
        return values


@dataclass(frozen=True)
class ThreadRanks(Ranks):
    """A rank that is a thread: collectives wait for the other threads as real ones do."""

    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def barrier(self) -> None:
        if self.world_size > 1:
            self.meeting.exchange(self.rank, None)

    def sum(self, values_N: torch.Tensor) -> torch.Tensor:
        if self.world_size == 1:
            return values_N
        parts = self.meeting.exchange(self.rank, values_N.clone())
        return values_N.copy_(torch.stack(parts).sum(0))

    def gather(self, value: T) -> list[T]:
        if self.world_size == 1:
            return [value]
        return self.meeting.exchange(self.rank, value)


def run_gang(world_size: int, act: Callable[[Ranks], T]) -> list[T]:
    """Call ``act`` on every rank at once; the results in order of rank, or the first error."""
    meeting = Meeting(world_size)

    def one(rank: int) -> T:
        try:
            return act(ThreadRanks(rank, world_size, CPU, meeting))
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(world_size) as pool:
        futures = [pool.submit(one, rank) for rank in range(world_size)]
        errors = [future.exception() for future in futures]
    causes = [e for e in errors if e is not None and not isinstance(e, threading.BrokenBarrierError)]
    if causes:
        raise causes[0]
    return [future.result() for future in futures]
