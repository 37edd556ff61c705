"""``prunus doctor`` from facts to exit code."""

import json

import pytest
from typer.testing import CliRunner

from prunus.service.cli.commands import doctor as command
from prunus.service.cli.main import app
from prunus.service.doctor.facts import Facts, Package


@pytest.mark.parametrize(("package", "code"), [(Package(version="2.60.0"), 0), (Package(version=None), 1)])
def test_the_exit_code_says_whether_a_job_could_run(
    monkeypatch: pytest.MonkeyPatch, package: Package, code: int
) -> None:
    monkeypatch.setattr(command, "ask", lambda: Facts(packages={"ray": package}))
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == code
    written = CliRunner().invoke(app, ["doctor", "--json"])
    assert written.exit_code == code
    (ray,) = [line for line in json.loads(written.stdout) if line["name"] == "ray"]
    if code == 0:
        assert "ok       ray            2.60.0\n" in shown.stdout
        assert ray == {"name": "ray", "state": "ok", "text": "2.60.0", "remedy": ""}
    else:
        assert "missing  ray            not installed -> run `pip install 'prunus[train]'`\n" in shown.stdout
        assert ray["state"] == "missing"


def test_the_repair_says_what_it_did_and_looks_at_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.torchaudio_libraries, "repair", lambda: "torchaudio loads: nothing to repair")
    run = CliRunner().invoke(app, ["doctor", "--repair"])
    assert (run.exit_code, run.stdout) == (0, "torchaudio loads: nothing to repair\n")
