"""The plan of the local Ray: nothing is started here."""

import http.server
import json
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunus.cluster import embedded_ray
from prunus.cluster.embedded_ray import EmbeddedRay, RayPorts, ensure_token, is_ready, prepare_temp_dir
from prunus.service.local.free_ports import pick_port

PORTS = RayPorts(dashboard=1, gcs=2, client=3, agent=4)


def test_the_command_names_every_port_the_cpus_and_the_directory(tmp_path: Path) -> None:
    words = EmbeddedRay(tmp_path, PORTS, num_cpus=2).command(tmp_path / "ray")
    assert words[2:6] == ["ray.scripts.scripts", "start", "--head", "--block"]
    expected = {
        "--dashboard-host=127.0.0.1",
        "--dashboard-port=1",
        "--port=2",
        "--ray-client-server-port=3",
        "--dashboard-agent-listen-port=4",
        "--num-cpus=2",
        f"--temp-dir={tmp_path / 'ray'}",
        "--disable-usage-stats",
    }
    assert expected <= set(words)
    assert not any(word.startswith("--num-gpus") for word in words)


def test_the_environment_guards_ray_and_keeps_the_marker_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    environ = EmbeddedRay(tmp_path, PORTS, num_cpus=2).environment()
    assert environ["RAY_AUTH_MODE"] == "token"
    assert environ["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "ray-token")
    assert environ["RAY_JOB_STOP_WAIT_TIME_S"] == "30"
    assert environ["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] == "0"
    assert environ["OMP_NUM_THREADS"] == "1"
    assert environ["SPT_NOENV"] == "1"


def test_the_token_is_private_and_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "token"
    ensure_token(path)
    first = path.read_text()
    assert len(first) == 64 and stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    ensure_token(path)
    assert path.read_text() == first and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_long_home_gets_a_short_private_directory_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / ("x" * 60)
    home.mkdir()
    monkeypatch.setattr(embedded_ray.tempfile, "mkdtemp", lambda prefix: str(tmp_path / prefix))
    first = prepare_temp_dir(home)
    assert first == tmp_path / "prunus-" and stat.S_IMODE(first.stat().st_mode) == 0o700
    assert prepare_temp_dir(home, first) == first


def test_only_the_newest_session_of_earlier_starts_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded_ray, "_LONGEST_TEMP_DIR", 500)
    for name in ("session_2026-01-01", "session_2026-01-02", "session_2026-01-03"):
        (tmp_path / "ray" / name / "logs").mkdir(parents=True)
    (tmp_path / "ray" / "session_latest").symlink_to("session_2026-01-03")
    directory = prepare_temp_dir(tmp_path)
    assert directory == tmp_path / "ray"
    assert sorted(path.name for path in directory.iterdir()) == ["session_2026-01-03", "session_latest"]


@pytest.fixture
def dashboard() -> Iterator[tuple[str, dict[str, str]]]:
    """Answers as a dashboard does, 401 without the token; gives its address and its answers, which may be changed."""
    answers = {"/api/version": '{"ray_version": "2.60.0"}', "/api/v0/nodes?limit=100": nodes("ALIVE")}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers["authorization"] == "Bearer secret" and self.path in answers
            self.send_response(200 if known else 401)
            self.end_headers()
            self.wfile.write(answers[self.path].encode() if known else b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", answers
        server.shutdown()
        thread.join()


def nodes(*states: str) -> str:
    return json.dumps({"data": {"result": {"result": [{"state": state} for state in states]}}})


def test_readiness_needs_the_token_an_answer_and_a_live_node(dashboard: tuple[str, dict[str, str]]) -> None:
    url, answers = dashboard
    assert is_ready(url, "secret")
    assert not is_ready(url)
    for lacking in (nodes(), nodes("DEAD"), "[]", "not json"):
        answers["/api/v0/nodes?limit=100"] = lacking
        assert not is_ready(url, "secret")
    assert not is_ready(f"http://127.0.0.1:{pick_port()}", "secret")
