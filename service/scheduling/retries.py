"""Is a failed attempt tried again? Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from prunus.configs import StopReason

RETRY_BUDGETS: Mapping[StopReason, int] = dict.fromkeys(StopReason, 0)
"""How many attempts that ended so may be followed by another one, per job. All 0 for now: every end is final."""


@dataclass(frozen=True)
class Retry:
    """Whether an attempt that ended is followed by another."""

    again: bool
    reason: str


def retry(reason: StopReason, num_earlier: int, budgets: Mapping[StopReason, int] | None = None) -> Retry:
    """Compare what a class of failure has used with its budget.

    Args:
        reason: How this attempt ended.
        num_earlier: Attempts of the job before this one that ended so too.
        budgets: None for ``RETRY_BUDGETS``.
    """
    budget = (RETRY_BUDGETS if budgets is None else budgets)[reason]
    used = num_earlier + 1
    if used <= budget:
        return Retry(True, f"retry: {used} <= {budget} for {reason}")
    return Retry(False, f"no retry: {used} > {budget} for {reason}")
