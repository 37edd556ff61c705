"""The poll loop: look at jobs again and again until all have ended."""

from collections.abc import Iterator, Sequence

from prunus.service.cli.waiting.patience import POLL_S, Tell, now, patiently, pause
from prunus.service.cli.waiting.references import MOST_LISTED
from prunus.service.client import Client
from prunus.service.wire import JobView

_TOGETHER = 4
"""So many jobs of one campaign are asked for in one question."""


def watch(
    client: Client, job_ids: Sequence[str], tell: Tell, *, poll_s: float = POLL_S, timeout_s: float | None = None
) -> Iterator[list[JobView]]:
    """Yield the jobs again and again until all have ended; the last value is the final one.

    Args:
        tell: Called with one line when the server is silent, and when it is back.
        poll_s: Seconds between two looks.
        timeout_s: Stop looking after so many seconds; None: never.

    Raises:
        Unreachable: The server was silent for longer than ``PATIENCE_S``.
    """
    deadline = None if timeout_s is None else now() + timeout_s
    known: dict[str, JobView] = {}
    while True:
        _look(client, [i for i in job_ids if i not in known or not known[i].state.is_terminal], known, tell, poll_s)
        jobs = [known[job_id] for job_id in job_ids]
        yield jobs
        if all(job.state.is_terminal for job in jobs) or (deadline is not None and now() >= deadline):
            return
        pause(poll_s)


def _look(client: Client, job_ids: Sequence[str], known: dict[str, JobView], tell: Tell, poll_s: float) -> None:
    """Ask for the jobs, those of one campaign together where they are many: a group of 200 is one question a second."""
    pending = dict.fromkeys(job_ids)
    while pending:
        job_id = next(iter(pending))
        job = known[job_id] = patiently(lambda job_id=job_id: client.job(job_id), tell, poll_s)  # type: ignore[misc]
        del pending[job_id]
        same = [i for i in pending if i not in known or known[i].campaign_id == job.campaign_id]
        if len(same) < _TOGETHER:
            continue
        group = patiently(lambda job=job: client.jobs(job.campaign_id, limit=MOST_LISTED), tell, poll_s)  # type: ignore[misc]
        for view in group:
            if view.id in pending:
                known[view.id] = view
                del pending[view.id]
