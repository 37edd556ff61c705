"""May a blocked job be queued? Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prunus.configs.values.wording import listed
from prunus.service.wire import JobState


@dataclass(frozen=True)
class Parent:
    """A job that must come first."""

    name: str
    state: JobState


def all_parents(ids: Sequence[str], found: Mapping[str, Parent]) -> list[Parent]:
    """Parents in order. One that the store cannot read is left out of ``found`` and counts as failed: nothing can start
    from it.
    """
    return [found.get(job_id) or Parent(f"{job_id}, which cannot be read,", JobState.FAILED) for job_id in ids]


@dataclass(frozen=True)
class Unblock:
    """What to do with a BLOCKED job."""

    action: Literal["wait", "queue", "skip"]
    reason: str


def unblock(parents: Sequence[Parent]) -> Unblock:
    """Queue a job whose parents have all succeeded; skip it as soon as one cannot succeed any more."""
    for parent in parents:
        if parent.state.is_terminal and parent.state is not JobState.SUCCEEDED:
            return Unblock("skip", f"{parent.name} came first and ended {parent.state}")
    waiting = [f"{parent.name} ({parent.state})" for parent in parents if parent.state is not JobState.SUCCEEDED]
    done = len(parents) - len(waiting)
    if waiting:
        reason = f"{done} of {len(parents)} jobs before it have succeeded; waits for {listed(waiting)}"
        return Unblock("wait", reason)
    return Unblock("queue", f"all {done} jobs before it have succeeded" if done else "nothing comes before it")
