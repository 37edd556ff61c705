"""Progress for people and for the scheduler."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prunus.configs import Progress
from prunus.jobs.tracking import heartbeat as report
from prunus.jobs.tracking.heartbeat import Reporter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Move time forward by seconds."""
    now = [1000.0]

    def forward(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(report.time, "time", lambda: now[0])
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    return forward


def read(path: Path) -> Progress:
    return Progress.model_validate_json(path.read_text())


def test_a_phase_is_written_at_once(tmp_path: Path, clock: Callable[[float], None]) -> None:
    path = tmp_path / "attempts" / "1" / "progress.json"
    reporter = Reporter(path, "j-a1")
    for phase in ("starting", "data"):
        reporter.phase(phase)
        assert (read(path).phase, read(path).attempt_id, read(path).time) == (phase, "j-a1", 1000.0)


def test_steps_are_written_once_a_second_and_the_last_one_always(
    tmp_path: Path, clock: Callable[[float], None]
) -> None:
    path = tmp_path / "progress.json"
    reporter = Reporter(path, "j-a1")
    seen = []
    for step in range(1, 8):
        clock(0.4)
        reporter.step(step, 7, {"loss": float(step)})
        seen.append(read(path).step)
    assert seen == [1, 1, 1, 4, 4, 4, 7]
    assert read(path).metrics == {"loss": 7.0}
    assert read(path).phase == "training"


def test_the_time_left_is_the_pace_since_this_attempt_began(tmp_path: Path, clock: Callable[[float], None]) -> None:
    path = tmp_path / "progress.json"
    reporter = Reporter(path, "j-a2")
    reporter.step(50, 100, {})  # resumed
    assert read(path).eta_s is None
    clock(20.0)
    reporter.step(60, 100, {})  # 2 s a step, 40 to go
    assert read(path).eta_s == pytest.approx(80.0)


def test_the_latest_value_of_every_curve_stays(tmp_path: Path, clock: Callable[[float], None]) -> None:
    path = tmp_path / "progress.json"
    reporter = Reporter(path, "j-a1")
    reporter.step(1, 9, {"loss": 1.0, "lr": 0.1})
    clock(2)
    reporter.step(2, 9, {"loss": 0.5})
    reporter.phase("saving")
    assert read(path).metrics == {"loss": 0.5, "lr": 0.1}
    assert (read(path).step, read(path).num_steps) == (2, 9)


def test_a_value_that_is_no_number_does_not_make_the_heartbeat_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    Reporter(path, "j-a1").step(9, 9, {"loss": math.nan, "eval/perplexity": math.inf, "lr": 0.1})
    assert read(path).metrics == {"lr": 0.1}


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    reporter = Reporter(None, "j-a1")
    reporter.phase("starting")
    reporter.step(1, 1, {})
    assert not list(tmp_path.iterdir())


def test_a_phase_without_steps_still_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_HEARTBEAT_S", 0.05)
    path = tmp_path / "progress.json"
    reporter = Reporter(path, "j-a1")
    reporter.phase("data")
    first = read(path)
    deadline = time.monotonic() + 20
    while read(path).time == first.time and time.monotonic() < deadline:
        time.sleep(0.02)
    later = read(path)
    assert later.time > first.time
    assert later.model_copy(update={"time": first.time}) == first
    reporter.close()
    time.sleep(0.2)
    last = read(path).time
    time.sleep(0.3)
    assert read(path).time == last
