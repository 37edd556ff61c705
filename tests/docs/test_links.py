"""What README and docs name exists: files, recipes, commands, modules."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from prunus.service.cli.main import app
from prunus.service.submission.shipped_recipes import shipped_recipes

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks/README.md",
    ROOT / "cluster/deploy/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
ROOMS = "configs|jobs|cluster|service|tests|benchmarks|docs|src"
COMMANDS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> Iterator[str]:
    """Yield the anchors of a page's headings, as GitHub makes them."""
    for heading in re.findall(r"^#+ (.+)$", text(page), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@every_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{page.name}: {target}"
        if anchor and place.suffix == ".md":
            assert anchor in set(anchors(place)), f"{page.name}: no heading for {target}"


@every_page
def test_paths_in_backticks_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return
    for path in re.findall(rf"`((?:{ROOMS})/[\w./-]+\.(?:py|yaml|json|md))`", text(page)):
        if "NAME" not in path and "zeroN" not in path:
            assert (ROOT / path).exists(), f"{page.name}: {path}"


@every_page
def test_modules_that_are_run_exist(page: Path) -> None:
    for module in re.findall(r"python -m ((?:prunus|benchmarks)[\w.]*\w)", text(page)):
        path = ROOT / module.removeprefix("prunus.").replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{page.name}: {module}"


@every_page
def test_imported_names_exist(page: Path) -> None:
    for module, names in re.findall(r"from (prunus\.[\w.]+) import ([\w, ]+)", text(page)):
        path = ROOT / module.removeprefix("prunus.").replace(".", "/")
        source = text(path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py")
        for name in names.split(", "):
            assert re.search(rf"\b{name.strip()}\b", source), f"{page.name}: {name} of {module}"


@every_page
def test_commands_exist(page: Path) -> None:
    for command in re.findall(r"(?:^|[`;$] ?)prunus ([a-z][a-z-]+)", text(page), re.MULTILINE):
        assert command in COMMANDS, f"{page.name}: prunus {command}"


@every_page
def test_recipes_exist(page: Path) -> None:
    known = {recipe.name for recipe in shipped_recipes()}
    named = set(re.findall(r"`((?:parp|prune_ofa|single|movement)/[a-z_]+)`", text(page)))
    submitted = set(re.findall(r"prunus (?:submit|plan) ((?:[a-z_]+/)?[a-z_]+)(?=[\s`])", text(page)))
    assert named | submitted <= known, page.name


def test_the_readme_can_be_read_in_three_minutes() -> None:
    lines = text(ROOT / "README.md").split("\n")
    assert len(lines) <= 200
    assert max(len(line) for line in lines if not line.startswith("|")) <= 122


def test_the_first_recipe_is_short() -> None:
    lines = (ROOT / "configs/recipes/first_job.yaml").read_text(encoding="utf-8").split("\n")
    assert len([line for line in lines if line.strip() and not line.startswith("#")]) <= 15
