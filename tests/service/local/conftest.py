"""Small stand-ins for the parts of the embedded default, and a home that is ended afterwards."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunus.cluster import embedded_ray
from prunus.service.local import processes
from prunus.service.local.free_ports import pick_port
from prunus.service.local.parts import _base_environment
from prunus.service.local.state import Part, PartName, UpState
from prunus.service.local.up import down

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
        environ = _base_environment(state, name)
        log = home / "logs" / f"{name}.log"
        return Part(process=processes.start_detached(command, environ, home, log), url=url, log=str(log))

    monkeypatch.setattr("prunus.service.local.up.launch", launch)
    monkeypatch.setattr("prunus.service.local.up._GRACE_S", {"server": 0.2, "ray": 0.2, "mlflow": 0.2})
    return behaviour


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("PRUNUS_HOST", "PRUNUS_TOKEN", "PRUNUS_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("PRUNUS_PORT", "PRUNUS_MLFLOW_PORT"):
        monkeypatch.setenv(name, str(pick_port()))
    monkeypatch.setattr(embedded_ray.tempfile, "mkdtemp", lambda prefix: str(tmp_path / prefix))
    yield tmp_path / "home"
    down(tmp_path / "home")
