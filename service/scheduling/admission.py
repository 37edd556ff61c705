"""May this gang start now? Pure functions over what the cluster offers and what our own attempts hold.

Ranks are indivisible: each fits on one node whole. A gang starts whole or waits. Order: the oldest first. If the oldest
does not fit, a younger one may start only if the oldest would still fit next to it and next to every younger gang that
runs: the oldest then waits for older gangs alone, which end, so nothing starves.

A gang whose campaign runs all that its ``max_parallel`` allows waits for its campaign, not for resources: it holds back
nobody else, and takes its old place in the order again as soon as a gang of its campaign has ended.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prunus.cluster.executor import Capacity
from prunus.configs.specs.resources import Resources

_EPSILON = 1e-6
"""CPUs are fractions; Ray itself counts in steps of 1e-4."""


@dataclass(frozen=True)
class Limit:
    """How many gangs of one campaign may hold resources at a time."""

    campaign_id: str
    campaign: str
    """Its name, for people."""
    max_parallel: int


@dataclass(frozen=True)
class Gang:
    """A job that asks for resources."""

    seq: int
    """Place in the queue: smaller is older."""
    job_id: str
    name: str
    need: Resources
    limit: Limit | None = None
    """None: its campaign may run as many jobs as fit."""


@dataclass(frozen=True)
class Held:
    """A gang whose attempt lives."""

    gang: Gang
    placement: tuple[str, ...]
    """Node of each rank."""


@dataclass(frozen=True)
class Admission:
    """What to do with one waiting gang, and why, with the arithmetic."""

    gang: Gang
    action: Literal["start", "wait"]
    reason: str
    placement: tuple[str, ...] = ()


Free = dict[str, tuple[float, float]]
"""Node -> (CPUs, GPUs)."""


def refuse_impossible(name: str, need: Resources, capacity: Capacity) -> str | None:
    """Say why the gang could never fit, even on the empty cluster; None if it could."""
    if place(need, _empty(capacity)) is not None:
        return None
    biggest = max(((node.gpus, node.cpus) for node in capacity.nodes), default=(0.0, 0.0))
    total = f"{_number(capacity.cpus)} CPUs and {_number(capacity.gpus)} GPUs on {len(capacity.nodes)} nodes"
    return (
        f"job {name!r} needs {_needs(need)}, each rank whole on one node; the cluster has {total}, "
        f"the biggest node {_number(biggest[1])} CPUs and {_number(biggest[0])} GPUs; "
        "lower resources.num_ranks, cpus_per_rank or gpus_per_rank, or add nodes"
    )


def place(need: Resources, free: Mapping[str, tuple[float, float]]) -> tuple[str, ...] | None:
    """Choose a node for each rank; None if the gang does not fit whole.

    ``pack`` fills the roomiest nodes first; ``spread`` deals ranks out one by one.
    """
    room = {node: _num_ranks_on(need, cpus, gpus) for node, (cpus, gpus) in free.items()}
    if sum(room.values()) < need.num_ranks:
        return None
    nodes = sorted((node for node in room if room[node]), key=lambda node: (-room[node], node))
    if need.placement == "pack":
        return tuple(node for node in nodes for _ in range(room[node]))[: need.num_ranks]
    chosen: list[str] = []
    while len(chosen) < need.num_ranks:
        for node in nodes:
            if room[node] and len(chosen) < need.num_ranks:
                room[node] -= 1
                chosen.append(node)
    return tuple(chosen)


def admit(waiting: Sequence[Gang], held: Sequence[Held], capacity: Capacity) -> list[Admission]:
    """Decide for every waiting gang, the oldest first.

    Args:
        waiting: Gangs that are queued.
        held: Gangs whose attempts live, the starting and stopping ones included.
        capacity: The live nodes.
    """
    running = list(held)
    head: Gang | None = None
    decisions = []
    for gang in sorted(waiting, key=lambda g: g.seq):
        if (over := _over_limit(gang, running)) is not None:
            decisions.append(Admission(gang, "wait", over))
            continue
        placement = place(gang.need, free_after(capacity, running))
        if placement is None:
            decisions.append(Admission(gang, "wait", _why_not(gang, running, capacity)))
            head = head or gang
            continue
        started = Held(gang, placement)
        if head is not None and not _still_fits(head, [*running, started], capacity):
            reason = f"fits now, but would delay {head.name}, which is older and waits for {_needs(head.need)}"
            decisions.append(Admission(gang, "wait", reason))
            continue
        running.append(started)
        overtakes = f"; overtakes {head.name} without delaying it" if head else ""
        reason = f"{_needs(gang.need)} on {_places(placement)}{overtakes}"
        decisions.append(Admission(gang, "start", reason, placement))
    return decisions


def free_after(capacity: Capacity, held: Sequence[Held]) -> Free:
    """What the nodes have left beside the held gangs. Ranks on a node that is gone hold nothing."""
    free = _empty(capacity)
    for owner in held:
        for node in owner.placement:
            if node in free:
                cpus, gpus = free[node]
                free[node] = (cpus - owner.gang.need.cpus_per_rank, gpus - owner.gang.need.gpus_per_rank)
    return free


def _over_limit(gang: Gang, held: Sequence[Held]) -> str | None:
    """Say that the campaign has all the gangs it may have at a time; None if it has not."""
    if gang.limit is None:
        return None
    own = sum(o.gang.limit is not None and o.gang.limit.campaign_id == gang.limit.campaign_id for o in held)
    if own < gang.limit.max_parallel:
        return None
    most = gang.limit.max_parallel
    return (
        f"waits: campaign {gang.limit.campaign} already runs {own} of its at most {most} job{'s' if most > 1 else ''}"
    )


def _still_fits(head: Gang, held: Sequence[Held], capacity: Capacity) -> bool:
    younger = [owner for owner in held if owner.gang.seq > head.seq]
    return place(head.need, free_after(capacity, younger)) is not None


def _num_ranks_on(need: Resources, cpus: float, gpus: float) -> int:
    by_cpu = math.floor((cpus + _EPSILON) / need.cpus_per_rank)
    by_gpu = math.floor((gpus + _EPSILON) / need.gpus_per_rank) if need.gpus_per_rank else by_cpu
    return max(0, min(by_cpu, by_gpu))


def _why_not(gang: Gang, held: Sequence[Held], capacity: Capacity) -> str:
    free = free_after(capacity, held)
    free_cpus = sum(max(0.0, cpus) for cpus, _ in free.values())
    have = f"{_number(free_cpus)} of {_number(capacity.cpus)} CPUs free"
    if gang.need.gpus_per_rank:
        free_gpus = sum(max(0.0, gpus) for _, gpus in free.values())
        have += f", {_number(free_gpus)} of {_number(capacity.gpus)} GPUs free"
    if len(capacity.nodes) != 1:
        room = sum(_num_ranks_on(gang.need, *left) for left in free.values())
        have += f" on {len(capacity.nodes)} nodes, whole room for {room} ranks"
    names = ", ".join(owner.gang.name for owner in held) or "nothing"
    return f"{_needs(gang.need)} needed, {have}; running: {names}"


def _empty(capacity: Capacity) -> Free:
    return {node.node_id: (node.cpus, node.gpus) for node in capacity.nodes}


def _needs(need: Resources) -> str:
    ranks = f"{need.num_ranks} rank{'s' if need.num_ranks > 1 else ''} x {_number(need.cpus_per_rank)} CPU"
    return f"{ranks} and {need.gpus_per_rank} GPU" if need.gpus_per_rank else ranks


def _places(placement: Sequence[str]) -> str:
    counts = {node: placement.count(node) for node in dict.fromkeys(placement)}
    return ", ".join(f"{node} ({count})" for node, count in counts.items())


def _number(value: float) -> str:
    return f"{max(0.0, value):.6g}"
