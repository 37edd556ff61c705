"""Whether an MLflow server answers."""

import httpx
import pytest

from prunus.service.publishing.mlflow_health import ask_health


def test_health_is_the_answer_200_within_three_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def get(url: str, timeout: float) -> httpx.Response:
        asked.append((url, timeout))
        if len(asked) == 3:
            raise httpx.ConnectError("nobody")
        return httpx.Response(200 if len(asked) == 1 else 503)

    monkeypatch.setattr(httpx, "get", get)
    answers = ask_health("http://mlflow:5000/")
    assert [answers(), answers(), answers()] == [True, False, False]
    assert asked == [("http://mlflow:5000/health", 3.0)] * 3
    assert ask_health("sqlite:///x.db")()
