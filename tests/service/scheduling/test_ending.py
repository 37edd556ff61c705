"""What a person reads about an end."""

from prunus.configs import Outcome, StopReason
from prunus.service.scheduling.ending import summarize_end
from prunus.service.scheduling.verdict import Verdict


def test_a_success_with_a_warning_says_it() -> None:
    outcome = Outcome(attempt_id="j-a1", token="1", reason=StopReason.SUCCEEDED, message="it says nothing")
    verdict = Verdict(True, StopReason.SUCCEEDED, "outcome.json says succeeded", outcome=outcome)
    assert summarize_end(1, verdict, outcome.message) == "attempt 1 ended: succeeded: it says nothing"
    silent = Verdict(True, StopReason.SUCCEEDED, "outcome.json says succeeded", outcome=None)
    assert summarize_end(1, silent, "outcome.json says succeeded") == "attempt 1 ended: succeeded"
