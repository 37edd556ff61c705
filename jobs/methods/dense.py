"""No pruning: teacher preparation and dense baselines (Prune OFA, arXiv 2111.05754, section 3.1)."""

from configs.methods import Dense
from jobs.methods.base import Method


class DenseMethod(Method[Dense]):
    """Train every weight."""

    prunes = False
