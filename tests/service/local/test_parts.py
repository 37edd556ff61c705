"""What the parts are started with, and where they are reached."""

from pathlib import Path

import pytest

from prunus.service.local.parts import _server, local_url
from prunus.service.local.state import UpOptions
from prunus.service.local.up import status, up


@pytest.mark.usefixtures("modes")
def test_existing_ray_and_mlflow_are_used_and_not_started(home: Path) -> None:
    options = UpOptions(ray_address="http://ray.example:8265", mlflow_uri="http://mlflow.example", store="sqlite://")
    state = up(home, options)
    assert set(state.parts) == {"server"}
    _, environ = _server(home, state)
    assert environ["PRUNUS_RAY_ADDRESS"] == "http://ray.example:8265"
    assert environ["PRUNUS_MLFLOW_URI"] == "http://mlflow.example"
    assert environ["PRUNUS_STORE"] == "sqlite://"
    assert environ["PRUNUS_EMBEDDED"] == "false"
    assert status(home)["ray"] == ("external", "http://ray.example:8265")


@pytest.mark.usefixtures("modes")
def test_a_server_for_others_listens_where_it_was_told_and_is_reached_on_loopback(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "api-token").write_text("secret")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRUNUS_TOKEN_FILE", "api-token")
    monkeypatch.setenv("PRUNUS_HOST", "0.0.0.0")
    state = up(home)
    assert state.server_url.startswith("http://127.0.0.1:")
    _, environ = _server(home, state)
    assert environ["PRUNUS_HOST"] == "0.0.0.0"
    assert environ["PRUNUS_TOKEN_FILE"] == str(tmp_path / "api-token")


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:1"), ("::", "http://[::1]:1"), ("192.0.2.7", "http://192.0.2.7:1")],
)
def test_where_a_server_is_reached_from_its_own_machine(host: str, url: str) -> None:
    assert local_url(host, 1) == url
