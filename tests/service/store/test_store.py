"""Every write is one transaction, guarded by the state that it was decided in."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from prunus.configs import Progress, StopReason
from prunus.service.errors import Refused, StaleTransition
from prunus.service.store.database import Database
from prunus.service.store.store import Store
from prunus.service.wire import JobState
from tests.service.store.queue import add
from tests.service.world import Clock

Open = Callable[[], Store]


def test_a_campaign_is_cancelled_whole_once(store: Store) -> None:
    campaign = add(store, "runs", "waits", "ended")
    store.begin_attempt(store.find_job("runs"), ["n1"], "now")
    store.transition(store.find_job("ended"), JobState.FAILED, "no such source")
    told = store.cancel_campaign(campaign, "cancelled by a user")
    assert told == [store.find_job("runs").id, store.find_job("waits").id]
    assert [job.state for job in store.jobs()] == [JobState.CANCELLING, JobState.CANCELLED, JobState.FAILED]
    assert store.active()[0][1].stop_reason is StopReason.CANCELLED
    assert store.cancel_campaign(campaign, "again") == []
    assert store.find_job("waits").why == "cancelled by a user"


def test_a_transition_happens_only_from_the_state_it_was_decided_in(store: Store) -> None:
    add(store, "a")
    row = store.find_job("a")
    store.transition(row, JobState.CANCELLED, "cancelled")
    with pytest.raises(StaleTransition):
        store.transition(row, JobState.FAILED, "too late")
    with pytest.raises(StaleTransition):
        store.begin_attempt(row, [], "too late")
    assert store.find_job("a").state is JobState.CANCELLED
    assert store.attempts([row.id]) == {row.id: []}
    assert [event.kind for event in store.events(row.id)] == ["submitted", "cancelled"]


def test_tokens_only_grow_also_over_jobs_and_restarts(url: str, clock: Clock) -> None:
    tokens = []
    for name in ("a", "b", "c"):
        store = Store(Database(url), clock)
        add(store, name)
        tokens.append(store.begin_attempt(store.find_job(name), [], "now").token)
        store.close()
    assert tokens == sorted(set(tokens))


def test_an_attempt_ends_once(store: Store) -> None:
    add(store, "a")
    attempt = store.begin_attempt(store.find_job("a"), ["n1"], "now")
    running = store.find_job("a")
    store.end_attempt(
        running, attempt, StopReason.USER_ERROR, JobState.FAILED, JobState.FAILED, "bad", "bad", metrics={"x": 1.0}
    )
    with pytest.raises(StaleTransition):
        store.end_attempt(running, attempt, StopReason.SUCCEEDED, JobState.SUCCEEDED, JobState.SUCCEEDED, "", "")
    ended = store.attempts([running.id])[running.id][0]
    assert (ended.reason, ended.state, ended.message) == (StopReason.USER_ERROR, JobState.FAILED, "bad")
    assert store.active() == []
    assert store.find_job("a").metrics == {"x": 1.0}


def test_a_retried_job_gets_the_next_number_and_keeps_its_place(store: Store) -> None:
    add(store, "a", "b")
    first = store.begin_attempt(store.find_job("a"), [], "now")
    store.end_attempt(
        store.find_job("a"), first, StopReason.WORKER_LOST, JobState.FAILED, JobState.QUEUED, "lost", "retry: 1 <= 1"
    )
    second = store.begin_attempt(store.find_job("a"), [], "again")
    assert (first.number, second.number) == (1, 2)
    assert second.id.endswith("-a2")
    assert second.token > first.token
    assert store.jobs()[0].name == "a"


def test_progress_is_kept_with_the_attempt(store: Store) -> None:
    add(store, "a")
    attempt = store.begin_attempt(store.find_job("a"), [], "now")
    progress = Progress(attempt_id=attempt.id, time=5.0, phase="training", step=3, metrics={"loss/train": 1.5})
    store.note(attempt, progress=progress)
    assert store.active()[0][1].progress == progress


def test_the_same_key_and_body_queue_once_among_twenty_threads(store: Store) -> None:
    barrier = threading.Barrier(20)

    def post(_: int) -> str:
        barrier.wait()
        return add(store, "a", "b", key="key-1")

    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(post, range(20)))
    assert len(answers) == 1
    assert len(store.jobs()) == 2


def test_the_same_key_with_another_body_is_refused(store: Store) -> None:
    add(store, "a", key="key-1")
    with pytest.raises(Refused, match="used for another campaign"):
        add(store, "b", key="key-1", body="y")
    assert len(store.jobs()) == 1


def test_of_twenty_schedulers_one_gets_the_job(store: Store) -> None:
    add(store, "a")
    row = store.find_job("a")
    barrier = threading.Barrier(20)

    def begin(_: int) -> bool:
        barrier.wait()
        try:
            store.begin_attempt(row, [], "now")
        except StaleTransition:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(begin, range(20))) == 1
    assert len(store.attempts([row.id])[row.id]) == 1
