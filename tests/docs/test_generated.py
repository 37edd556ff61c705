"""The generated reference is that of the code, and every field of a recipe explains itself."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("configs", "jobs", "cluster", "service")


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs/generate.py"))


@pytest.fixture(scope="module")
def pages(generator: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = generator["pages"]()
    return found


@pytest.mark.parametrize("name", ["cli.md", "http.md", "environment.md", "spec.md"])
def test_a_page_is_not_stale(pages: dict[str, str], name: str) -> None:
    written = (ROOT / "docs/reference" / name).read_text(encoding="utf-8")
    assert written == pages[name], f"docs/reference/{name} is stale; run `make docs`"


def test_every_command_and_variable_of_the_code_is_on_a_page(pages: dict[str, str]) -> None:
    for command in ("submit", "fetch", "compare", "up", "down"):
        assert f"## prunus {command}\n" in pages["cli.md"]
    in_code = set[str]()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            in_code |= set(re.findall(r"\bPRUNUS_[A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8")))
    on_page = set(re.findall(r"`(PRUNUS_[A-Z_]+)`", pages["environment.md"]))
    assert in_code - {"PRUNUS_X"} <= on_page  # PRUNUS_X: any of them, in the docstring of Settings


def test_the_spec_page_states_type_default_range_and_unit(pages: dict[str, str]) -> None:
    row = next(line for line in pages["spec.md"].split("\n") if line.startswith("| `final_sparsity`"))
    assert row.startswith("| `final_sparsity` | number | **required** | >= 0, < 1 | Share of the prunable weights")
    row = next(line for line in pages["spec.md"].split("\n") if line.startswith("| `timeout_s`"))
    assert row.startswith("| `timeout_s` | number or null | null | > 0, seconds |")


def test_every_field_of_a_recipe_has_a_sentence(generator: dict[str, Any]) -> None:
    silent = [
        f"{model.__name__}.{name}"
        for model in generator["spec_models"]()
        for name, field in model.model_fields.items()
        if not field.description
    ]
    assert silent == []
