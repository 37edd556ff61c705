"""One rank of a gang, without the others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from prunus.configs import JobSpec
from prunus.jobs.ranks import Ranks

MakeRanks = Callable[..., Ranks]
MakeSpec = Callable[..., JobSpec]


@dataclass(frozen=True)
class OneOfMany(Ranks):
    """A rank that plays alone: it does what rank 0 does and hears only itself."""

    @property
    def is_main(self) -> bool:
        return True

    def gather(self, value: Any) -> list[Any]:
        return [value] * self.world_size

    def main_first(self, build: Callable[[], Any]) -> Any:
        return build()


def make_ranks(rank: int = 0, world_size: int = 1) -> Ranks:
    return OneOfMany(rank, world_size, torch.device("cpu"))
