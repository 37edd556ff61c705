"""What each rank of a gang holds."""

from typing import Literal, Self

from pydantic import Field, model_validator

from prunus.configs.values.base import Strict


class Resources(Strict):
    """What the gang needs; it starts whole or waits."""

    num_ranks: int = Field(default=1, ge=1)
    """Processes of the gang."""
    cpus_per_rank: float = Field(default=1.0, gt=0.0)
    """CPU cores that Ray reserves for each rank; torch uses that many threads, rounded down, at least 1."""
    gpus_per_rank: int = Field(default=0, ge=0)
    """0: train on CPU with gloo; 1: one GPU per rank with nccl."""
    placement: Literal["pack", "spread"] = "pack"
    """``pack`` ranks on as few nodes as possible, or ``spread`` them."""

    @model_validator(mode="after")
    def _one_gpu(self) -> Self:
        if self.gpus_per_rank > 1:
            raise ValueError(f"gpus_per_rank is {self.gpus_per_rank}; a rank drives one GPU: raise num_ranks instead")
        return self
