"""The distribution: every package and data file is in it, the light install is light, ranges fit what was tested."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from prunus import configs
from prunus.service.doctor.lock import normalise, parse_lock

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = ROOT / "requirements.lock"
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


def requirements(*, with_dev: bool) -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"]
    lines = [*PROJECT["project"]["dependencies"]]
    for name, extra in extras.items():
        lines += extra if with_dev or name != "dev" else []
    return [found for found in map(Requirement, lines) if found.name != "prunus"]


def bounds(requirement: Requirement) -> dict[str, str]:
    """Version by operator: ``{">=": "2.12", "<": "3"}``."""
    return {bound.operator: bound.version for bound in requirement.specifier}


def test_the_wheel_asks_for_ranges_so_that_it_fits_beside_other_packages() -> None:
    for requirement in requirements(with_dev=False):
        assert set(bounds(requirement)) == {">=", "<"}, requirement


def test_what_was_tested_together_lies_in_the_ranges() -> None:
    locked = parse_lock(LOCK.read_text())
    for requirement in requirements(with_dev=True):
        assert requirement.specifier.contains(locked[normalise(requirement.name)]), requirement


def test_the_lock_names_exact_releases_and_no_place() -> None:
    for line in LOCK.read_text().splitlines():
        assert line.startswith("# ") or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line), line
    locked = parse_lock(LOCK.read_text())
    assert locked["torch"] == "2.13.0", "the Makefile and the Dockerfile install this one first"
    assert {"starlette", "pydantic-core", "tokenizers", "grpcio"} <= set(locked), "what others bring is pinned, too"


def test_the_oldest_releases_are_those_of_the_ranges() -> None:
    oldest = parse_lock((ROOT / "requirements.lowest").read_text())
    tried = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["test"]]
    assert oldest == {normalise(found.name): bounds(found)[">="] for found in map(Requirement, tried)}


def test_setup_installs_what_the_lock_names() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "LOCK := requirements.lock" in makefile
    assert "$(STAMP): pyproject.toml $(LOCK)" in makefile
    installs = [line for line in makefile.splitlines() if "pip install" in line]
    assert all("torch==2.13.0" in line or "-c $(LOCK)" in line or "-c requirements.lowest" in line for line in installs)


def test_the_light_install_has_neither_torch_nor_ray() -> None:
    names = {Requirement(line).name.lower() for line in PROJECT["project"]["dependencies"]}
    assert not names & {"torch", "ray", "deepspeed", "transformers", "datasets", "accelerate", "mlflow", "torchaudio"}


def test_the_wheel_that_the_image_installs_has_one_name_and_every_file(tmp_path: Path) -> None:
    """The Dockerfile copies folders and links one by one; what it copies must be enough to build."""
    for line in re.findall(r"^COPY (.*)$", (ROOT / "cluster/deploy/Dockerfile").read_text(), re.MULTILINE):
        *sources, destination = line.split()
        for source in sources:
            target = tmp_path / destination.lstrip("/") / ("" if (ROOT / source).is_dir() else source)
            copy(ROOT / source, target)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", tmp_path, tmp_path / "src"], check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (top_level,) = [name for name in names if name.endswith(".dist-info/top_level.txt")]
        assert archive.read(top_level).decode() == "prunus\n"
        lock = archive.read("prunus/service/doctor/requirements.lock").decode()
    assert lock == LOCK.read_text()
    tracked = {
        f"prunus/{path.relative_to(ROOT).as_posix()}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {name for name in names if ".dist-info/" not in name} == tracked | {"prunus/__init__.py"}


def copy(source: Path, target: Path) -> None:
    """As COPY in a Dockerfile: the content of a folder, links as links."""
    if source.is_dir():
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=ignored)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


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
