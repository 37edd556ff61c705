"""``up`` and ``down``: with small stand-ins for the parts, and once with the real ones."""

import json
import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from prunus.cluster import embedded_ray
from prunus.cluster.embedded_ray import pick_port
from prunus.service.errors import Refused, StartFailed
from prunus.service.local import parts as embedded_parts
from prunus.service.local import processes
from prunus.service.local import up as embedded
from prunus.service.local.parts import MARKER, Part, PartName, UpOptions, UpState

STAND_IN = """
import http.server, os, signal, subprocess, sys
port, body, mode = int(sys.argv[1]), sys.argv[2], sys.argv[3]
if mode == "fail":
    sys.exit("the database is on fire")
if mode == "orphan":
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
    child = subprocess.Popen([sys.executable, "-c", ignore], start_new_session=True, stdout=subprocess.PIPE)
    child.stdout.readline()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(body.encode())
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


ANSWER = json.dumps({"data": {"result": {"result": [{"state": "ALIVE"}]}}})


@pytest.fixture
def modes(monkeypatch: pytest.MonkeyPatch) -> dict[PartName, str]:
    """Replace the three parts by stand-ins; the dictionary says how each behaves."""
    behaviour: dict[PartName, str] = {"ray": "good", "mlflow": "good", "server": "good"}

    def launch(home: Path, state: UpState, name: PartName) -> Part:
        url = {"ray": state.ray_url, "mlflow": state.mlflow_url, "server": state.server_url}[name]
        (home / "ray-token").write_text("secret")
        command = [sys.executable, "-c", STAND_IN, url.rsplit(":", 1)[1], ANSWER, behaviour[name]]
        environ = embedded_parts._base_environment(state, name)
        log = home / "logs" / f"{name}.log"
        return Part(process=processes.start_detached(command, environ, home, log), url=url, log=str(log))

    monkeypatch.setattr(embedded_parts, "launch", launch)
    monkeypatch.setattr(embedded, "_GRACE_S", {"server": 0.2, "ray": 0.2, "mlflow": 0.2})
    return behaviour


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("PRUNUS_HOST", "PRUNUS_TOKEN", "PRUNUS_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("PRUNUS_PORT", "PRUNUS_MLFLOW_PORT"):
        monkeypatch.setenv(name, str(pick_port()))
    monkeypatch.setattr(embedded_ray.tempfile, "mkdtemp", lambda prefix: str(tmp_path / prefix))
    yield tmp_path / "home"
    embedded.down(tmp_path / "home")


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
    state = embedded.up(home, say=said.append)
    assert set(state.parts) == {"ray", "mlflow", "server"}
    assert len(marked(home)) == 3
    assert {name: health for name, (health, _) in embedded.status(home).items()} == dict.fromkeys(
        ("ray", "mlflow", "server"), "running"
    )
    assert stat.S_IMODE((home / "up.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert embedded.running_url(home) == state.server_url
    assert any(line.startswith("server answers at") for line in said)
    assert embedded.down(home)
    assert marked(home) == []
    assert not (home / "up.json").exists() and embedded.running_url(home) is None
    assert not embedded.down(home)


@pytest.mark.usefixtures("modes")
def test_a_second_up_changes_nothing(home: Path) -> None:
    first = embedded.up(home)
    said: list[str] = []
    assert embedded.up(home, say=said.append) == first
    assert said == [f"already up: {first.server_url}"]


@pytest.mark.usefixtures("modes")
def test_up_repairs_the_part_that_crashed_and_keeps_the_others(home: Path) -> None:
    first = embedded.up(home)
    os.kill(first.parts["mlflow"].process.pid, signal.SIGKILL)
    second = embedded.up(home)
    assert second.parts["ray"] == first.parts["ray"] and second.parts["server"] == first.parts["server"]
    assert second.parts["mlflow"].process != first.parts["mlflow"].process
    assert second.mlflow_url == first.mlflow_url
    assert len(marked(home)) == 3


def test_a_part_that_cannot_start_shows_its_log_and_the_others_are_stopped(
    home: Path, modes: dict[PartName, str]
) -> None:
    modes["server"] = "fail"
    with pytest.raises(StartFailed, match=r"(?s)server ended while it started.*the database is on fire"):
        embedded.up(home)
    assert marked(home) == []


def test_ray_that_ends_while_it_starts_is_started_again(home: Path, modes: dict[PartName, str]) -> None:
    modes["ray"] = "fail"
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.endswith("starting ray again"):
            modes["ray"] = "good"

    state = embedded.up(home, say=say)
    assert any("the database is on fire" in line for line in said)
    assert embedded.read_state(home) == state
    assert embedded.status(home)["ray"][0] == "running"


def test_ray_is_not_started_for_ever(home: Path, modes: dict[PartName, str]) -> None:
    modes["ray"] = "fail"
    said: list[str] = []
    with pytest.raises(StartFailed, match="ray ended while it started"):
        embedded.up(home, say=said.append)
    assert sum(line.endswith("starting ray again") for line in said) == 2
    assert marked(home) == []


def test_down_ends_an_orphan_that_ignores_term(home: Path, modes: dict[PartName, str]) -> None:
    modes["ray"] = "orphan"
    state = embedded.up(home)
    assert len(marked(home)) == 4
    os.kill(state.parts["ray"].process.pid, signal.SIGKILL)
    embedded.down(home)
    assert marked(home) == []


@pytest.mark.usefixtures("modes")
def test_down_finds_what_runs_even_without_its_record(home: Path) -> None:
    embedded.up(home)
    (home / "up.json").write_text("{ half a rec")
    assert embedded.down(home)
    assert marked(home) == []


@pytest.mark.usefixtures("modes")
def test_other_options_while_up_are_refused(home: Path) -> None:
    embedded.up(home)
    with pytest.raises(StartFailed, match="is up with other options"):
        embedded.up(home, UpOptions(num_cpus=1))


@pytest.mark.usefixtures("modes")
def test_existing_ray_and_mlflow_are_used_and_not_started(home: Path) -> None:
    options = UpOptions(ray_address="http://ray.example:8265", mlflow_uri="http://mlflow.example", store="sqlite://")
    state = embedded.up(home, options)
    assert set(state.parts) == {"server"}
    _, environ = embedded_parts._server(home, state)
    assert environ["PRUNUS_RAY_ADDRESS"] == "http://ray.example:8265"
    assert environ["PRUNUS_MLFLOW_URI"] == "http://mlflow.example"
    assert environ["PRUNUS_STORE"] == "sqlite://"
    assert environ["PRUNUS_EMBEDDED"] == "false"
    assert embedded.status(home)["ray"] == ("external", "http://ray.example:8265")


@pytest.mark.usefixtures("modes")
def test_what_differs_is_named_without_the_password_of_the_store(home: Path) -> None:
    embedded.up(home, UpOptions(store="postgresql://u:s3cr@t@h/a?password=s3cret", num_cpus=1))
    with pytest.raises(StartFailed) as caught:
        embedded.up(home, UpOptions(store="sqlite:////x.db", num_cpus=1))
    message = str(caught.value)
    assert "store is postgresql://u:***@h/a?password=***, now sqlite:////x.db" in message
    assert "s3cr" not in message and "num_cpus" not in message


@pytest.mark.usefixtures("modes")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "laptop.example"])
def test_a_server_for_others_needs_a_token(home: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("PRUNUS_HOST", host)
    with pytest.raises(Refused, match=f"PRUNUS_HOST is {host}: .*set PRUNUS_TOKEN or PRUNUS_TOKEN_FILE"):
        embedded.up(home)
    assert embedded.read_state(home) is None


@pytest.mark.usefixtures("modes")
def test_a_server_for_others_listens_where_it_was_told_and_is_reached_on_loopback(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "api-token").write_text("secret")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRUNUS_TOKEN_FILE", "api-token")
    monkeypatch.setenv("PRUNUS_HOST", "0.0.0.0")
    state = embedded.up(home)
    assert state.server_url.startswith("http://127.0.0.1:")
    _, environ = embedded_parts._server(home, state)
    assert environ["PRUNUS_HOST"] == "0.0.0.0"
    assert environ["PRUNUS_TOKEN_FILE"] == str(tmp_path / "api-token")


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:1"), ("::", "http://[::1]:1"), ("192.0.2.7", "http://192.0.2.7:1")],
)
def test_where_a_server_is_reached_from_its_own_machine(host: str, url: str) -> None:
    assert embedded_parts.local_url(host, 1) == url


@pytest.mark.parametrize("mlflow", [None, "http://127.0.0.1:5000", "http://localhost:5000"])
def test_ranks_elsewhere_are_not_sent_to_the_mlflow_of_this_machine(home: Path, mlflow: str | None) -> None:
    options = UpOptions(ray_address="http://192.0.2.10:8265", mlflow_uri=mlflow)
    with pytest.raises(Refused, match="give --mlflow-uri"):
        embedded.up(home, options)


@pytest.mark.usefixtures("modes")
def test_an_existing_ray_on_this_machine_uses_the_mlflow_that_is_started(home: Path) -> None:
    state = embedded.up(home, UpOptions(ray_address="http://localhost:8265"))
    assert set(state.parts) == {"server", "mlflow"}


def test_a_missing_package_is_told_with_its_remedy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise embedded_parts.PackageNotFoundError(name)

    monkeypatch.setattr(embedded_parts, "version", absent)
    with pytest.raises(StartFailed, match=r"MLflow server is not installed here; install 'prunus\[train\]'"):
        embedded.up(home)


def test_a_wrong_number_of_cpus_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNUS_CPUS", "many")
    with pytest.raises(StartFailed, match="PRUNUS_CPUS is 'many'"):
        embedded.up(home)


def test_a_process_is_known_by_its_start_time_too() -> None:
    me = processes.ProcessId(pid=os.getpid(), started=psutil.Process().create_time())
    assert processes.is_alive(me)
    assert not processes.is_alive(me.model_copy(update={"started": me.started - 60.0}))
