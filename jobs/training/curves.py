"""Points of the curves: sums since the last one, the load of the machine, and the history of the masks."""

import time

import psutil
import torch

from prunus.jobs.ranks import Ranks

History = list[tuple[int, float | None, float, dict[str, float]]]
"""Per mask update: (step, target sparsity if there is one, sparsity reached, IOU of kept positions with the mask before
by weight)."""


def system_metrics(ranks: Ranks) -> dict[str, float]:
    """Memory of rank 0 and load of its node."""
    values = {
        "system/memory_rss_gb": psutil.Process().memory_info().rss / 1e9,
        "system/cpu_percent": psutil.cpu_percent(),
    }
    if ranks.device.type == "cuda":
        values["system/gpu_memory_peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return values


class Window:
    """Sums since the last point of the curves; ``rows`` is over all ranks already, the others are this rank's.

    Args:
        num_terms: Of the loss.
    """

    def __init__(self, num_terms: int) -> None:
        self._num_terms = num_terms
        self.reset()

    def reset(self) -> None:
        self.sums = torch.zeros(self._num_terms, dtype=torch.float64)
        self.rows = torch.zeros(self._num_terms, dtype=torch.float64)
        self.tokens = torch.zeros(1, dtype=torch.float64)
        self.steps = 0
        self.began = time.monotonic()

    def add(self, sums: torch.Tensor, batch: dict[str, torch.Tensor]) -> None:
        """Take in one micro-batch."""
        self.sums = self.sums.to(sums.device) + sums.double()
        self.tokens = self.tokens.to(sums.device) + batch["attention_mask"].sum()
        self.rows = self.rows.to(sums.device)
