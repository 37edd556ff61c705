"""Admission of gangs, by tables worked out by hand; and two laws over random queues."""

import random

import pytest

from prunus.cluster.executor import Capacity, Node
from prunus.configs.specs.resources import Resources
from prunus.service.scheduling.admission import Gang, Held, Limit, admit, free_after, place, refuse_impossible

ONE_NODE = Capacity((Node("n1", 2.0, 0.0),))
TWO_NODES = Capacity((Node("n1", 4.0, 1.0), Node("n2", 2.0, 1.0)))


def gang(seq: int, ranks: int = 1, cpus: float = 1.0, gpus: int = 0, limit: Limit | None = None) -> Gang:
    need = Resources(num_ranks=ranks, cpus_per_rank=cpus, gpus_per_rank=gpus)
    return Gang(seq, f"j-{seq}", f"job{seq}", need, limit)


@pytest.mark.parametrize(
    ("need", "placement"),
    [
        ({"num_ranks": 2}, ("n1", "n1")),
        ({"num_ranks": 5}, ("n1", "n1", "n1", "n1", "n2")),
        ({"num_ranks": 7}, None),
        ({"num_ranks": 2, "placement": "spread"}, ("n1", "n2")),
        ({"num_ranks": 5, "placement": "spread"}, ("n1", "n2", "n1", "n2", "n1")),
        # Six CPUs in all, but a rank is indivisible: 1 + 0 ranks of 3.
        ({"num_ranks": 2, "cpus_per_rank": 3.0}, None),
        ({"num_ranks": 2, "cpus_per_rank": 0.1, "gpus_per_rank": 1}, ("n1", "n2")),
        ({"num_ranks": 3, "cpus_per_rank": 0.1, "gpus_per_rank": 1}, None),
    ],
)
def test_ranks_are_placed_whole(need: dict[str, object], placement: tuple[str, ...] | None) -> None:
    free = {node.node_id: (node.cpus, node.gpus) for node in TWO_NODES.nodes}
    assert place(Resources.model_validate(need), free) == placement


def test_fractions_of_a_cpu_add_up() -> None:
    assert place(Resources(num_ranks=10, cpus_per_rank=0.1), {"n1": (1.0, 0.0)}) == ("n1",) * 10


def test_a_gang_waits_with_the_arithmetic() -> None:
    held = [Held(gang(1, cpus=1.5), ("n1",))]
    (decision,) = admit([gang(2, ranks=2)], held, ONE_NODE)
    assert decision.action == "wait"
    assert decision.reason == "2 ranks x 1 CPU needed, 0.5 of 2 CPUs free; running: job1"


def test_the_oldest_is_served_first() -> None:
    decisions = admit([gang(3), gang(1), gang(2)], [], ONE_NODE)
    assert [(d.gang.seq, d.action) for d in decisions] == [(1, "start"), (2, "start"), (3, "wait")]


def test_a_younger_gang_may_not_delay_the_oldest_that_waits() -> None:
    held = [Held(gang(1), ("n1",))]
    waits, younger = admit([gang(2, ranks=2), gang(3)], held, ONE_NODE)
    assert (waits.action, younger.action) == ("wait", "wait")
    assert younger.reason == "fits now, but would delay job2, which is older and waits for 2 ranks x 1 CPU"


def test_a_younger_gang_overtakes_where_it_takes_nothing_from_the_oldest() -> None:
    # job1 holds three CPUs of n1. job2 needs four on one node: it will get n1. job3 fits on n2 beside that.
    held = [Held(gang(1, cpus=3.0), ("n1",))]
    waits, younger = admit([gang(2, cpus=4.0), gang(3, cpus=2.0)], held, TWO_NODES)
    assert (waits.action, younger.action, younger.placement) == ("wait", "start", ("n2",))
    assert "overtakes job2 without delaying it" in younger.reason


def test_gangs_that_overtook_count_when_the_next_one_wants_to() -> None:
    # job2 needs 3 of 4 CPUs, job1 (older) holds 2: one CPU may be given away, and job3 has it already.
    capacity = Capacity((Node("n1", 4.0, 0.0),))
    held = [Held(gang(1, cpus=2.0), ("n1",)), Held(gang(3), ("n1",))]
    _, younger = admit([gang(2, cpus=3.0), gang(4)], held, capacity)
    assert younger.action == "wait"


def test_ranks_on_a_node_that_is_gone_hold_nothing() -> None:
    free = free_after(ONE_NODE, [Held(gang(1, ranks=2), ("n1", "gone"))])
    assert free == {"n1": (1.0, 0.0)}


@pytest.mark.parametrize(
    ("need", "words"),
    [
        ({"num_ranks": 3}, "needs 3 ranks x 1 CPU"),
        ({"num_ranks": 1, "gpus_per_rank": 1}, "needs 1 rank x 1 CPU and 1 GPU"),
        ({"cpus_per_rank": 2.5}, "needs 1 rank x 2.5 CPU"),
        ({"num_ranks": 2}, None),
    ],
)
def test_what_can_never_fit_is_told_with_numbers(need: dict[str, object], words: str | None) -> None:
    why = refuse_impossible("big", Resources.model_validate(need), ONE_NODE)
    if words is None:
        assert why is None
    else:
        assert why is not None
        assert words in why
        assert "the cluster has 2 CPUs and 0 GPUs on 1 node" in why


TWO = Limit("c-1", "grid", 2)
ONE = Limit("c-2", "slow", 1)
EIGHT_CPUS = Capacity((Node("n1", 8.0, 0.0),))


def test_a_campaign_starts_no_more_than_its_limit_and_says_so() -> None:
    decisions = admit([gang(seq, limit=TWO) for seq in (1, 2, 3, 4)], [], EIGHT_CPUS)
    assert [d.action for d in decisions] == ["start", "start", "wait", "wait"]
    assert decisions[2].reason == "waits: campaign grid already runs 2 of its at most 2 jobs"


def test_what_a_campaign_runs_already_counts_and_what_others_run_does_not() -> None:
    held = [Held(gang(1, limit=ONE), ("n1",)), Held(gang(2), ("n1",)), Held(gang(3, limit=TWO), ("n1",))]
    decisions = admit([gang(4, limit=ONE), gang(5, limit=TWO), gang(6, limit=TWO)], held, EIGHT_CPUS)
    assert [d.action for d in decisions] == ["wait", "start", "wait"]
    assert decisions[0].reason == "waits: campaign slow already runs 1 of its at most 1 job"


def test_a_gang_over_its_campaigns_limit_holds_back_no_other() -> None:
    # job2 would need all of the node, but waits for its campaign: job3 and job4 start as if it were not there.
    held = [Held(gang(1, limit=ONE), ("n1",))]
    waits, *others = admit([gang(2, ranks=8, limit=ONE), gang(3), gang(4, limit=TWO)], held, EIGHT_CPUS)
    assert waits.action == "wait"
    assert [d.action for d in others] == ["start", "start"]


def test_below_its_limit_a_gang_has_its_old_place_in_the_order_again() -> None:
    # The campaign's other job has ended: job2 is the oldest now, and nothing younger may delay it.
    held = [Held(gang(3), ("n1",))]
    first, younger = admit([gang(2, ranks=8, limit=ONE), gang(4)], held, EIGHT_CPUS)
    assert (first.action, younger.action) == ("wait", "wait")
    assert "8 ranks x 1 CPU needed, 7 of 8 CPUs free" in first.reason
    assert "would delay job2" in younger.reason


def test_a_limit_changes_nothing_while_it_is_not_reached() -> None:
    wide = Limit("c-1", "grid", 6)
    plain = admit([gang(seq, ranks=seq % 3 + 1) for seq in range(6)], [], EIGHT_CPUS)
    limited = admit([gang(seq, ranks=seq % 3 + 1, limit=wide) for seq in range(6)], [], EIGHT_CPUS)
    assert [(d.action, d.reason, d.placement) for d in limited] == [(d.action, d.reason, d.placement) for d in plain]


def test_random_queues_never_overcommit_a_node_and_never_starve() -> None:
    rng = random.Random(5)
    for _ in range(30):
        capacity = Capacity(tuple(Node(f"n{i}", rng.choice([1.0, 2.0, 4.0]), 0.0) for i in range(3)))
        waiting = []
        for seq in range(25):
            asked = gang(seq, ranks=rng.randint(1, 4), cpus=rng.choice([0.5, 1.0, 2.0]))
            if refuse_impossible(asked.name, asked.need, capacity) is None:
                waiting.append(asked)
        held: list[Held] = []
        for _round in range(200):
            for decision in admit(waiting, held, capacity):
                if decision.action == "start":
                    held.append(Held(decision.gang, decision.placement))
                    waiting.remove(decision.gang)
            assert all(cpus >= -1e-6 for cpus, _ in free_after(capacity, held).values())
            if not waiting:
                break
            # The oldest gang that runs ends; new small ones keep coming and must not hold the oldest back.
            held.sort(key=lambda owner: owner.gang.seq)
            held.pop(0)
            waiting.append(gang(1000 + _round, cpus=0.5))
        assert all(owner.seq >= 1000 for owner in waiting)
