"""The compiled parts of a package are removed if, and only if, it does not load with them and loads without."""

import sys
from pathlib import Path

import pytest

from prunus.service.doctor.torchaudio_libraries import repair, repair_libraries
from prunus.service.errors import StartFailed

BAD = "OSError('Could not load this library')"


@pytest.fixture
def libraries(tmp_path: Path) -> list[Path]:
    """Two compiled parts in one folder."""
    paths = [tmp_path / "one.so", tmp_path / "two.so"]
    for path in paths:
        path.write_bytes(b"ELF")
    return paths


def importing(folder: Path, error_with: str, error_without: str = "") -> tuple[str, ...]:
    """A command that stands for the import: it raises one error if a library is there, another if none is."""
    code = f"import pathlib\nif list(pathlib.Path({str(folder)!r}).glob('*.so')): {error_with or 'pass'}\n"
    code += f"else: {error_without or 'pass'}\n"
    return (sys.executable, "-c", code)


def files(libraries: list[Path]) -> list[str]:
    return sorted(path.name for path in libraries[0].parent.iterdir())


def test_what_loads_is_left_alone(libraries: list[Path]) -> None:
    done = repair_libraries(libraries, importing(libraries[0].parent, ""))
    assert done == "torchaudio loads: nothing to repair"
    assert files(libraries) == ["one.so", "two.so"]


def test_what_does_not_load_is_removed(libraries: list[Path]) -> None:
    command = importing(libraries[0].parent, f"raise {BAD}")
    assert "removed one.so, two.so" in repair_libraries(libraries, command)
    assert files(libraries) == []
    assert repair_libraries([], command) == "torchaudio loads: nothing to repair"


@pytest.mark.parametrize(
    ("error_with", "error_without", "words"),
    [
        (f"raise {BAD}", "raise ImportError('no torch')", "without its compiled parts either (ImportError: no torch)"),
        ("raise ImportError('no torch')", "", "cannot be imported (ImportError: no torch)"),
        ("raise SystemExit(3)", "", "cannot be imported (exit code 3)"),
    ],
)
def test_another_failure_changes_nothing(
    libraries: list[Path], error_with: str, error_without: str, words: str
) -> None:
    with pytest.raises(StartFailed) as refused:
        repair_libraries(libraries, importing(libraries[0].parent, error_with, error_without))
    assert words in str(refused.value)
    assert files(libraries) == ["one.so", "two.so"]


def test_without_torchaudio_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert repair() == "torchaudio is not installed: nothing to repair"
