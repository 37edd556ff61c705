"""Which server a command talks to."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from prunus.service.cli import connection
from prunus.service.cli.main import app
from prunus.service.errors import Unreachable
from prunus.service.local.state import UpOptions
from tests.service.command_line import Run


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["list", "--url", "http://127.0.0.1:9"])
    assert result.exit_code == Unreachable.exit_code
    assert "error: no answer from the prunus server at http://127.0.0.1:9" in result.stderr


def test_without_a_server_the_embedded_default_is_started_and_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[Path, UpOptions | None]] = []

    def up(home: Path, options: UpOptions | None, say: object) -> SimpleNamespace:
        started.append((home, options))
        return SimpleNamespace(server_url=url)

    url = os.environ["PRUNUS_URL"]
    monkeypatch.delenv("PRUNUS_URL")
    monkeypatch.setattr(connection, "up", up)
    result = run("list", "--json")
    assert started == [(tmp_path / "home", None)]
    assert "no server is configured" in result.stderr and json.loads(result.stdout) == []
    for name, value in (("RAY_ADDRESS", "http://ray:8265"), ("MLFLOW_URI", "http://m:1"), ("STORE", "sqlite:////q.db")):
        monkeypatch.setenv(f"PRUNUS_{name}", value)
    run("list")
    expected = UpOptions(ray_address="http://ray:8265", mlflow_uri="http://m:1", store="sqlite:////q.db")
    assert started[-1] == (tmp_path / "home", expected)
