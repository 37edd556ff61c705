"""Numbers, times and sizes, by hand."""

import pytest

from prunus.service.cli.shown.words import duration, size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (0.4, "0s"), (59.4, "59s"), (60, "1m00s"), (3599, "59m59s"), (7620, "2h07m"), (273_600, "3d04h")],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("num_bytes", "words"),
    [(None, ""), (999, "999 Bytes"), (1000, "1.0 kB"), (45_300_000, "45.3 MB"), (2 * 10**12, "2.0 TB")],
)
def test_sizes(num_bytes: int | None, words: str) -> None:
    assert size(num_bytes) == words
