"""From what the ranks of a failed gang left to one cause."""

import contextlib
from typing import Any

from prunus.configs import Launch, RankError, StopReason
from prunus.configs.artifacts.layout import JobDirectory


def explain_failure(directory: JobDirectory, launch: Launch, error: Exception) -> dict[str, Any]:
    """Find the cause: the first rank's own word if there is one, else what Ray Train says.

    Returns:
        Fields of the outcome: reason, message, failed rank.
    """
    records = []
    for path in directory.attempt(launch.attempt).glob("error-rank-*.json"):
        with contextlib.suppress(OSError, ValueError):
            records.append(RankError.model_validate_json(path.read_text(encoding="utf-8")))
    if records:
        # A rank that lost its peer is never the cause when another rank knows one.
        first = min(records, key=lambda record: (record.reason is StopReason.WORKER_LOST, record.time))
        if first.reason is StopReason.WORKER_LOST:
            return _silent_death({record.rank for record in records}, launch, first)
        return {"reason": first.reason, "message": first.message, "failed_rank": first.rank}
    kind = type(error).__name__
    text = str(error).strip().split("\n")[0][:500]
    if "Startup" in kind or "PlacementGroup" in kind:
        return {"reason": StopReason.LAUNCH_FAILED, "message": f"the gang did not start ({kind}: {text})"}
    seen = sorted(getattr(error, "worker_failures", {}))  # by Ray Train, which may end the others before they notice
    who = f"rank {seen[0]}" if len(seen) == 1 else "a rank"
    return {
        "reason": StopReason.WORKER_LOST,
        "message": f"{who} died without a word ({kind}: {text}); often the node ran out of memory or was taken away",
        "failed_rank": seen[0] if len(seen) == 1 else None,
    }


def _silent_death(spoke: set[int], launch: Launch, first: RankError) -> dict[str, Any]:
    """Some rank died without a word; those that left one only lost it, and the rest was ended with the gang."""
    silent = sorted(set(range(launch.spec.resources.num_ranks)) - spoke)
    if not silent:
        return {"reason": first.reason, "message": first.message, "failed_rank": None}
    who = f"rank {silent[0]}" if len(silent) == 1 else f"one of the ranks {', '.join(map(str, silent))}"
    return {
        "reason": first.reason,
        "message": f"{who} died without a word: killed, out of memory, or its node is gone; the last lines of its log "
        f"say how far it came. Rank {first.rank} noticed: {first.message[:300]}",
        "failed_rank": silent[0] if len(silent) == 1 else None,
    }
