"""Which process of the gang this is, and the few collectives that are not DeepSpeed's business."""

import os
import pickle
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
_MEET_S = 10.0
"""Pause between two meetings of ranks that wait for rank 0."""


@dataclass(frozen=True)
class Ranks:
    """This process's place in the gang.

    Attributes:
        rank: 0 .. world_size - 1.
        world_size: Processes in the gang.
        device: Where this rank computes.
    """

    rank: int
    world_size: int
    device: torch.device

    @classmethod
    def join(cls) -> "Ranks":
        """Join the gang: the process group that Ray Train or torchrun prepared, or one process alone.

        Sets what DeepSpeed and Accelerate read.
        """
        cuda = torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu"
        if not dist.is_initialized():
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
                for name, value in {**alone, "MASTER_PORT": str(free.getsockname()[1])}.items():
                    os.environ.setdefault(name, value)
            dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(minutes=30))
        ranks = cls.current()
        if cuda:
            torch.cuda.set_device(ranks.device)
        return ranks

    @classmethod
    def current(cls) -> "Ranks":
        """Read the place from the process group, else from the environment (one process alone)."""
        cuda = torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu"
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), device)
        return cls(0, 1, device)

    @property
    def is_main(self) -> bool:
        """Rank 0: the one that writes logs, artifacts and metrics."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world_size > 1:
            dist.barrier()

    def sum(self, values_N: torch.Tensor) -> torch.Tensor:
        """Add a tensor over all ranks, in place; returns it."""
        if self.world_size > 1:
            dist.all_reduce(values_N)
        return values_N

    def gather(self, value: T) -> list[T]:
        """Collect one picklable value of every rank, in order of rank, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[T | None] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def main_first(self, build: Callable[[], T]) -> T:
        """Run ``build`` on rank 0, then on the others (which find its result in a cache).

        It may take hours: the ranks meet meanwhile, so that no collective runs into its time limit. An error on rank 0
        is raised on all.
        """
        if self.world_size == 1:
            return build()
        error: BaseException | None = None
        result: T | None = None
        with ThreadPoolExecutor(1) as pool:
            built = pool.submit(build) if self.is_main else None
            while not self.gather(built is None or bool(wait([built], _MEET_S).done))[0]:
                pass
        if built is not None:
            error = built.exception()
            result = None if error else built.result()
        failed = self.gather(_portable(error))[0]
        if failed is not None:
            raise failed
        return result if self.is_main else build()  # type: ignore[return-value]


def _portable(error: BaseException | None) -> BaseException | None:
    """The error itself if it can be sent to other ranks, else its text."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:  # a library's exception may fail in any way here
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
