"""Where a process finds everything."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from prunus.service.errors import Refused
from prunus.service.settings import Settings


def test_the_command_line_beats_the_environment_and_that_the_default(tmp_path: Path) -> None:
    environ = {"PRUNUS_HOME": str(tmp_path), "PRUNUS_PORT": "9000", "PRUNUS_EMBEDDED": "true"}
    settings = Settings.load(environ, port=9001, host=None)
    assert (settings.home, settings.port, settings.host, settings.embedded) == (tmp_path, 9001, "127.0.0.1", True)
    assert settings.store == f"sqlite:///{tmp_path}/prunus.db"
    assert settings.storage == tmp_path / "storage"


def test_a_relative_home_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.load({}, home="here").home == tmp_path / "here"


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "nine"), ("PORT", "70000"), ("POLL_INTERVAL_S", "0"), ("RUNTIME_ENV", "{"), ("EMBEDDED", "maybe")],
)
def test_a_value_that_cannot_be_used_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(Refused, match=f"PRUNUS_{name}"):
        Settings.load({f"PRUNUS_{name}": value})


def test_tokens_come_from_files_and_show_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    settings = Settings.load({"PRUNUS_TOKEN_FILE": str(file), "PRUNUS_RAY_TOKEN_FILE": str(file)})
    assert (settings.bearer_token, settings.ray_token) == ("s3cret", "s3cret")
    given = Settings.load({}, token=SecretStr("other"))
    assert given.bearer_token == "other"
    assert "other" not in repr(given)


def test_a_token_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="token_file"):
        _ = Settings.load({}, token_file=tmp_path / "none").bearer_token


def test_a_token_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    with pytest.raises(Refused, match="is not text"):
        _ = Settings.load({}, token_file=tmp_path / "token").bearer_token


def test_a_loopback_server_answers_loopback_names_only() -> None:
    assert "localhost" in Settings.load({}).trusted_hosts
    assert Settings.load({}, host="0.0.0.0").trusted_hosts == ["*"]
    assert Settings.load({"PRUNUS_ALLOWED_HOSTS": "a.example, b.example"}).trusted_hosts == ["a.example", "b.example"]
