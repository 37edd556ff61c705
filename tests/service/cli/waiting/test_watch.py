"""How often the server is asked."""

from pathlib import Path
from typing import Any

import pytest

from prunus.service.client import Client
from prunus.service.wire import JobDetail, JobView
from tests.service.command_line import Run
from tests.service.world import World


def test_a_wait_for_fifty_jobs_asks_for_them_together(
    matrix: Path, run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("submit", matrix)
    asked = {"job": 0, "jobs": 0}
    one, many = Client.job, Client.jobs

    def ask_one(client: Client, ref: str) -> JobDetail:
        asked["job"] += 1
        return one(client, ref)

    def ask_many(client: Client, *given: Any, **named: Any) -> list[JobView]:
        asked["jobs"] += 1
        return many(client, *given, **named)

    monkeypatch.setattr(Client, "job", ask_one)
    monkeypatch.setattr(Client, "jobs", ask_many)
    assert run("wait", "grid").exit_code == 0
    looks = asked["jobs"]
    assert 10 <= looks <= 20  # 50 jobs, 4 at a time, a second each
    assert asked["job"] <= looks + 10
