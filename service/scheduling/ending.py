"""What a person reads about the end of an attempt. Pure."""

from prunus.configs import StopReason
from prunus.service.attempts.evidence import Left
from prunus.service.scheduling.verdict import Verdict

_TAIL_LINES = 15
"""Lines of the driver's log that stand for a message where nobody left one."""
_MAX_SENTENCE = 2000


def explain_end(verdict: Verdict, left: Left, driver_log: str) -> str:
    """The cause: the outcome's word, else that of the rank that failed first, else the driver's last lines."""
    own = verdict.outcome
    if verdict.reason in {StopReason.SUCCEEDED, StopReason.CANCELLED}:
        return own.message if own else verdict.why
    if verdict.reason is StopReason.TIMEOUT:
        return f"it ran longer than its timeout_s and was stopped; raise timeout_s ({verdict.why})"
    if verdict.reason is StopReason.PREEMPTED:
        return f"{verdict.why}; {own.message}" if own and own.message else verdict.why
    if own is not None and own.message:
        return own.message
    if left.first_error is not None:
        return f"rank {left.first_error.rank}: {left.first_error.message}"
    tail = "\n".join(driver_log.rstrip().splitlines()[-_TAIL_LINES:])
    return f"{verdict.why}\n\nend of the driver's log:\n{tail}" if tail else verdict.why


def summarize_end(number: int, verdict: Verdict, message: str) -> str:
    """One paragraph for ``why``: which attempt, which reason, and the message up to its first empty line."""
    head = f"attempt {number} ended: {verdict.reason}"
    if verdict.reason is StopReason.SUCCEEDED and not (verdict.outcome and verdict.outcome.message):
        return head
    return f"{head}: {message.strip().split(chr(10) * 2, 1)[0][:_MAX_SENTENCE]}"
