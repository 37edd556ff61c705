"""``prunus fetch``."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prunus.configs.errors import Damaged
from prunus.service.cli import connection
from prunus.service.cli.main import app
from prunus.service.errors import ARTIFACT_EXIT_CODES, NotFound
from tests.service.command_line import Run


def test_fetch_brings_what_a_job_left_and_inspect_refuses_it_when_damaged(
    recipe: Path, run: Run, tmp_path: Path
) -> None:
    run("submit", recipe, "--wait")
    fetched = json.loads(run("fetch", "job:teacher", tmp_path / "out", "--json").stdout)
    assert fetched["files"] == ["config.json"]
    assert (tmp_path / "out" / "config.json").read_text() == "{}"
    (tmp_path / "out" / "config.json").write_text("{ }")
    result = run("inspect", tmp_path / "out")
    assert result.exit_code == ARTIFACT_EXIT_CODES[Damaged] and "differs from its manifest" in result.stderr
    assert run("fetch", "job:absent", tmp_path / "other").exit_code == NotFound.exit_code


@pytest.mark.parametrize("source", ["./x", "/a/x", "~/x", "s3://bucket/x", "models:x", "", "demo:teacher"])
def test_fetch_names_the_forms_of_a_source(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRUNUS_URL", raising=False)
    monkeypatch.setattr(connection, "up", None)  # Nothing is started to say so.
    result = CliRunner().invoke(app, ["fetch", source, str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "write job:NAME, job:CAMPAIGN/NAME, job:ID or models:/NAME@ALIAS" in result.stderr
