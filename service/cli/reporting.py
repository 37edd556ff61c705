"""What is told of jobs after a command: what was queued, cancelled, or did not succeed."""

from collections.abc import Sequence

import typer

from prunus.service.cli.shown.counts import counts_line
from prunus.service.cli.shown.jobs import jobs_table
from prunus.service.cli.terminal import EXIT_INTERRUPTED, EXIT_NOT_SUCCEEDED, fail, note, print_json, stdout
from prunus.service.cli.waiting.wait import follow, wait_quietly
from prunus.service.client import Client
from prunus.service.wire import CampaignCancelled, CampaignView, JobState, JobView

_MOST_NAMED = 10
"""So many jobs are named one by one."""


def wait_for(
    client: Client, ids: Sequence[str], *, live: bool, cancel: Sequence[str] = (), timeout_s: float | None = None
) -> list[JobView]:
    """Wait for jobs.

    Args:
        cancel: What `prunus cancel` takes for all of them, told on Ctrl-C; empty: ``ids``.
    """
    try:
        if live:
            return follow(client, ids, stdout(), note, timeout_s=timeout_s)
        return wait_quietly(client, ids, note, timeout_s=timeout_s)
    except KeyboardInterrupt:
        fail(f"stopped looking; the jobs go on. To end them: prunus cancel {' '.join(cancel or ids)}", EXIT_INTERRUPTED)


def exit_by(jobs: Sequence[JobView]) -> None:
    unsuccessful = [job for job in jobs if job.state is not JobState.SUCCEEDED]
    for state in dict.fromkeys(job.state for job in unsuccessful):
        own = [job for job in unsuccessful if job.state is state]
        for job in own[:_MOST_NAMED]:
            note(f"{job.name} is {job.state.value}: {job.why}  (prunus why {job.id})")
        if more := own[_MOST_NAMED:]:
            note(f"{len(more)} more are {state.value}  (prunus show {more[0].campaign_id} --state {state.value})")
    if unsuccessful:
        raise typer.Exit(EXIT_NOT_SUCCEEDED)


def print_submitted(view: CampaignView, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    if len(view.jobs) <= 2 * _MOST_NAMED:
        stdout().print(jobs_table(view.jobs))
    else:
        most = f", at most {view.max_parallel} at a time" if view.max_parallel else ""
        typer.echo(f"{view.title}: {counts_line(view.jobs)}{most}  (prunus show {view.id})")
    note(f"queued; to follow: prunus wait --follow {view.id}")


def cancelled_line(answer: CampaignCancelled) -> str:
    """One line: how many jobs were ended at once, how many were asked to stop, how many had ended before."""
    ids, title, count = set(answer.cancelled), answer.campaign.title, answer.campaign.num_jobs
    now = [job for job in answer.campaign.jobs if job.id in ids]
    before = [job for job in answer.campaign.jobs if job.id not in ids]
    ended = sum(job.state.is_terminal for job in before)
    stopping = f", {len(before) - ended} are stopping" if ended < len(before) else ""
    if not now:
        return f"{title}: nothing to cancel: {ended} of {count} jobs have ended{stopping}"
    asked = sum(not job.state.is_terminal for job in now)
    words = [f"{title}: {len(now)} of {count} jobs cancelled"]
    if asked:
        words.append(f"{asked} of these ran and {'is' if asked == 1 else 'are'} asked to stop")
    if before:
        words.append(f"before that {ended} had ended{stopping}")
    return "; ".join(words)


def names(jobs: Sequence[JobView]) -> str:
    """Names of jobs; of many, the first ones and how many more."""
    more = f" and {len(jobs) - _MOST_NAMED} more" if len(jobs) > _MOST_NAMED else ""
    return ", ".join(job.name for job in jobs[:_MOST_NAMED]) + more
