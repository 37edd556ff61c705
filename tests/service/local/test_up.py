"""``up`` and ``down`` with small stand-ins for the parts."""

import os
import signal
import stat
from pathlib import Path

import pytest

from prunus.service.errors import StartFailed
from prunus.service.local.parts import MARKER
from prunus.service.local.state import PartName, UpOptions
from prunus.service.local.up import down, running_url, status, up


def marked(home: Path) -> list[int]:
    """Read /proc independently of the code under test."""
    needle = f"{MARKER}={(home / 'cluster-id').read_text()}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environ = path.read_bytes().split(b"\0")
            running = path.with_name("stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            continue
        if needle in environ and running:
            found.append(int(path.parent.name))
    return found


@pytest.mark.usefixtures("modes")
def test_up_starts_all_and_down_leaves_nothing(home: Path) -> None:
    said: list[str] = []
    state = up(home, say=said.append)
    assert set(state.parts) == {"ray", "mlflow", "server"}
    assert len(marked(home)) == 3
    assert {name: health for name, (health, _) in status(home).items()} == dict.fromkeys(
        ("ray", "mlflow", "server"), "running"
    )
    assert stat.S_IMODE((home / "up.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert running_url(home) == state.server_url
    assert any(line.startswith("server answers at") for line in said)
    assert down(home)
    assert marked(home) == []
    assert not (home / "up.json").exists() and running_url(home) is None
    assert not down(home)


@pytest.mark.usefixtures("modes")
def test_a_second_up_changes_nothing(home: Path) -> None:
    first = up(home)
    said: list[str] = []
    assert up(home, say=said.append) == first
    assert said == [f"already up: {first.server_url}"]


@pytest.mark.usefixtures("modes")
def test_up_repairs_the_part_that_crashed_and_keeps_the_others(home: Path) -> None:
    first = up(home)
    os.kill(first.parts["mlflow"].process.pid, signal.SIGKILL)
    second = up(home)
    assert second.parts["ray"] == first.parts["ray"] and second.parts["server"] == first.parts["server"]
    assert second.parts["mlflow"].process != first.parts["mlflow"].process
    assert second.mlflow_url == first.mlflow_url
    assert len(marked(home)) == 3


def test_down_ends_an_orphan_that_ignores_term(home: Path, modes: dict[PartName, str]) -> None:
    modes["ray"] = "orphan"
    state = up(home)
    assert len(marked(home)) == 4
    os.kill(state.parts["ray"].process.pid, signal.SIGKILL)
    down(home)
    assert marked(home) == []


@pytest.mark.usefixtures("modes")
def test_down_finds_what_runs_even_without_its_record(home: Path) -> None:
    up(home)
    (home / "up.json").write_text("{ half a rec")
    assert down(home)
    assert marked(home) == []


@pytest.mark.usefixtures("modes")
def test_other_options_while_up_are_refused(home: Path) -> None:
    up(home)
    with pytest.raises(StartFailed, match="is up with other options"):
        up(home, UpOptions(num_cpus=1))


@pytest.mark.usefixtures("modes")
def test_what_differs_is_named_without_the_password_of_the_store(home: Path) -> None:
    up(home, UpOptions(store="postgresql://u:s3cr@t@h/a?password=s3cret", num_cpus=1))
    with pytest.raises(StartFailed) as caught:
        up(home, UpOptions(store="sqlite:////x.db", num_cpus=1))
    message = str(caught.value)
    assert "store is postgresql://u:***@h/a?password=***, now sqlite:////x.db" in message
    assert "s3cr" not in message and "num_cpus" not in message


def test_a_wrong_number_of_cpus_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNUS_CPUS", "many")
    with pytest.raises(StartFailed, match="PRUNUS_CPUS is 'many'"):
        up(home)
