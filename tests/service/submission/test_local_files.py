"""What a job reads from this machine's disk and does not find there."""

from pathlib import Path

import pytest

from prunus.configs import ConfigError
from prunus.service.submission.dry_run import check_local_files
from prunus.service.submission.shipped_recipes import load_recipe
from tests.service.command_line import RECIPE


def test_masks_and_models_are_looked_for_where_jobs_leave_them(recipe: Path) -> None:
    """``fetch --masks-only`` leaves no config.json, and a job by hand has it in ``model/``."""
    base, masks = recipe.parent / "base", recipe.parent / "masks-only"
    recipe.write_text(RECIPE.replace("org/base", "./base").replace("0.9}", "0.9, mask: ./masks-only}"))
    (recipe.parent / "rows.csv").write_text("text,label\n")
    base.mkdir()
    masks.mkdir()
    campaign = load_recipe(str(recipe))
    with pytest.raises(ConfigError) as refused:
        check_local_files(campaign, "r.yaml")
    assert f"teacher: model: has no config.json: '{base}'; name a directory that transformers' save" in str(
        refused.value
    )
    assert f"student: mask: has no masks/step-N/mask.safetensors: '{masks}'; name a directory that a job" in str(
        refused.value
    )
    for file in (base / "model/config.json", masks / "masks/step-9/mask.safetensors"):
        file.parent.mkdir(parents=True)
        file.touch()
    check_local_files(campaign, "r.yaml")


def test_a_folder_of_clips_that_is_not_there_is_refused(recipe: Path) -> None:
    (recipe.parent / "train.tsv").touch()
    recipe.write_text(
        "name: a\nmodel: {from: org/base}\ntrain: {num_steps: 10, lr: {peak: 1e-3}}\n"
        "task: {name: ctc, data: {train: {files: [train.tsv], clips: ./sounds}}}\n"
    )
    campaign = load_recipe(str(recipe))
    with pytest.raises(ConfigError, match=r"a: task\.data\.train\[0\]\.clips: there is no directory '/.*/sounds'; say"):
        check_local_files(campaign, "r.yaml")
