"""The distribution: every package and data file is in it, the light install is light, pins are exact."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from prunus import configs

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ("configs", "jobs", "cluster", "runtime", "service")


def test_one_name_is_installed() -> None:
    """Folders at the top of the repository are rooms of one package; a wheel with ``configs`` would shadow others'."""
    (found,) = (path for path in (ROOT / "src").iterdir() if not path.name.endswith(".egg-info"))
    assert found.name == "prunus"
    links = {path.name: path.resolve() for path in found.iterdir() if path.is_symlink()}
    assert links == {room: ROOT / room for room in ROOMS}


def test_every_directory_with_code_is_a_package() -> None:
    folders = {path.parent for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_every_data_file_is_shipped() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    shipped = {
        path
        for package, globs in patterns.items()
        for glob in globs
        for path in (ROOT / package.removeprefix("prunus.")).glob(glob)
    }
    data = {
        path
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"} and "__pycache__" not in path.parts
    }
    assert data - shipped == set()


def test_pins_are_exact() -> None:
    extras = PROJECT["project"]["optional-dependencies"].values()
    for requirement in [*PROJECT["project"]["dependencies"], *(r for extra in extras for r in extra)]:
        assert re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[0-9][0-9a-z.]*", requirement), requirement


def test_the_light_install_has_neither_torch_nor_ray() -> None:
    names = {re.split(r"[\[=]", line)[0].lower() for line in PROJECT["project"]["dependencies"]}
    assert not names & {"torch", "ray", "deepspeed", "transformers", "datasets", "accelerate", "mlflow", "torchaudio"}


def test_one_version_everywhere() -> None:
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "prunus.configs.version.__version__"}
    assert f"## [{configs.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_licence_is_apache_2() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize("code", [0, 5])
def test_make_clean_ends_what_runs_before_its_records_go(tmp_path: Path, code: int) -> None:
    (tmp_path / ".prunus").mkdir()
    command = tmp_path / ".venv/bin/prunus"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\ntest -d .prunus && echo "$@" > told\nexit {code}\n')
    command.chmod(0o755)
    # Nothing of a `make test VENV=...` around this test may reach the one that deletes.
    environment = {"PATH": os.environ["PATH"]}
    make = ["make", "-f", ROOT / "Makefile", "VENV=.venv", "clean"]
    for _ in range(2):  # The second time there is neither .venv nor .prunus.
        subprocess.run(make, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert (tmp_path / "told").read_text() == "down --home .prunus\n"
    assert not (tmp_path / ".prunus").exists() and not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-m", "prunus.service.cli", "recipes"], 0, "prune_ofa/demo"),
        (["-m", "prunus.jobs"], 2, "usage: python -m prunus.jobs SPEC.yaml OUT_DIR"),
        (["-c", "from prunus.service.client import Client; print(Client.submit.__name__)"], 0, "submit"),
    ],
    ids=["command-line", "by-hand", "client"],
)
def test_folders_of_the_users_own_shadow_none_of_ours(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    for room in ("configs", "service", "cluster"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text(f"raise RuntimeError('the user has a {room}')\n")
    (tmp_path / "jobs.py").write_text("raise RuntimeError('the user has jobs')\n")
    command = [sys.executable, *arguments]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == code, run.stderr[-2000:]
    assert words in run.stdout + run.stderr
