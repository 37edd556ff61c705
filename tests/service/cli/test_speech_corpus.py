"""``prunus make-speech-corpus``: the command runs the maker and hands on its words and its exit code."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from prunus.service.cli import speech_corpus
from prunus.service.cli.main import app


def test_a_package_that_is_not_installed_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_corpus, "NEEDED", ("json", "no_such_package"))
    result = CliRunner().invoke(app, ["make-speech-corpus", str(tmp_path / "new")])
    assert result.exit_code == 2
    assert "no_such_package; pip install 'prunus[train,demo]'" in result.stderr
    assert not (tmp_path / "new").exists()


def test_the_exit_code_of_the_maker_is_that_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def refuse(command: list[str], *, check: bool) -> SimpleNamespace:
        commands.append(command[1:])
        return SimpleNamespace(returncode=2)

    monkeypatch.setattr(speech_corpus, "NEEDED", ())
    monkeypatch.setattr(speech_corpus.subprocess, "run", refuse)
    assert CliRunner().invoke(app, ["make-speech-corpus", "--", "-dir"]).exit_code == 2
    options = ["--languages=es,fr,it,ky,nl,ru,sv,tr,tt,zh", "--minutes=10.0", "--seed=0", "--", "-dir"]
    assert commands == [["-m", "prunus.jobs.examples.speech_corpus", *options]]
