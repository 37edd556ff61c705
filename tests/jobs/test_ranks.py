"""Ranks that wait for rank 0."""

import threading
import time
from pathlib import Path

import pytest

from prunus.jobs import ranks as ranks_module
from prunus.jobs.errors import DataError
from prunus.jobs.ranks import Ranks
from tests.jobs.thread_gang import ThreadRanks, run_gang


def test_ranks_meet_while_rank_0_builds_for_longer_than_a_collective_may_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks_module, "_MEET_S", 0.05)
    meetings: list[int] = []
    gather = ThreadRanks.gather

    def counted(self: ThreadRanks, value: object) -> list[object]:
        meetings.append(self.rank)
        return gather(self, value)

    monkeypatch.setattr(ThreadRanks, "gather", counted)

    def act(ranks: Ranks) -> str:
        def build() -> str:
            if ranks.is_main:
                time.sleep(0.5)
                (tmp_path / "cache").write_text("built")
            return (tmp_path / "cache").read_text()

        return ranks.main_first(build)

    assert run_gang(3, act) == ["built"] * 3
    assert meetings.count(2) > 4


def test_an_error_of_rank_0_is_everyones() -> None:
    seen: list[str] = []
    lock = threading.Lock()

    def act(ranks: Ranks) -> None:
        def build() -> None:
            assert ranks.is_main
            raise DataError("no rows")

        try:
            ranks.main_first(build)
        except DataError as error:
            with lock:
                seen.append(str(error))

    run_gang(2, act)
    assert seen == ["no rows", "no rows"]
