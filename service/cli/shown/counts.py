"""How many jobs are in which state, in words. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich.text import Text

from prunus.service.cli.shown.words import state_text
from prunus.service.wire import JobState, JobView

_ORDER = (
    JobState.SUCCEEDED,
    JobState.FAILED,
    JobState.CANCELLED,
    JobState.SKIPPED,
    JobState.CANCELLING,
    JobState.RUNNING,
    JobState.STARTING,
    JobState.QUEUED,
    JobState.BLOCKED,
)


def count_states(jobs: Iterable[JobView]) -> dict[JobState, int]:
    """Number of jobs in each state that occurs."""
    return dict(Counter(job.state for job in jobs))


def counts_text(counts: Mapping[JobState, int]) -> Text:
    """``12 SUCCEEDED, 4 RUNNING, 34 QUEUED``: what has ended first."""
    parts: list[Text] = []
    for state in _ORDER:
        if counts.get(state):
            parts.append(Text(f"{counts[state]} ").append_text(state_text(state)))
    return Text(", ").join(parts)


def counts_line(jobs: Sequence[JobView]) -> str:
    """``50 jobs: 12 SUCCEEDED, 38 QUEUED``."""
    return f"{len(jobs)} jobs: {counts_text(count_states(jobs)).plain}"
