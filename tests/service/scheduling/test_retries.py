"""When a failed attempt is tried again."""

from prunus.configs import StopReason
from prunus.service.scheduling.retries import retry


def test_no_class_of_failure_is_retried_yet() -> None:
    for reason in StopReason:
        assert not retry(reason, 0).again
    assert retry(StopReason.WORKER_LOST, 0).reason == "no retry: 1 > 0 for worker_lost"


def test_a_budget_of_two_gives_two_retries() -> None:
    budgets = {StopReason.WORKER_LOST: 2}
    again = [retry(StopReason.WORKER_LOST, used, budgets).again for used in range(3)]
    assert again == [True, True, False]
    assert retry(StopReason.WORKER_LOST, 1, budgets).reason == "retry: 2 <= 2 for worker_lost"
