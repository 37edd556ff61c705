"""Every recipe in the package loads, and every DeepSpeed file is what its name says."""

import json
from pathlib import Path

import pytest

from prunus.configs import load_file

ROOM = Path(__file__).parents[3] / "configs"
RECIPES = sorted((ROOM / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(ROOM).as_posix())
def test_a_recipe_loads(path: Path) -> None:
    loaded = load_file(path, base=Path("/somewhere"))
    assert loaded.jobs
    assert all(spec.name for spec in loaded.jobs)


def test_recipes_end_in_yaml() -> None:
    assert list((ROOM / "recipes").rglob("*.yml")) == []


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_deepspeed_file_has_the_stage_of_its_name_and_no_owned_key(stage: int) -> None:
    content = json.loads((ROOM / f"deepspeed/zero{stage}.json").read_text())
    assert content["zero_optimization"]["stage"] == stage
    assert not {"train_batch_size", "bf16", "fp16", "optimizer", "scheduler", "gradient_clipping"} & set(content)
