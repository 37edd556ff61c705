"""No pruning: teacher preparation and dense baselines (Prune OFA, arXiv 2111.05754, section 3.1)."""

from prunus.configs.methods.dense import Dense
from prunus.jobs.methods.base import Method


class DenseMethod(Method[Dense]):
    """Train every weight."""

    prunes = False
