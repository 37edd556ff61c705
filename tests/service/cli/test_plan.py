"""The drawing of a recipe: values against the schedules' own points, dots counted by hand."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from prunus.configs import Campaign, load_text
from prunus.service.cli.main import app
from prunus.service.cli.plan import chart, curves, page, save_png
from prunus.service.errors import Refused

RECIPE = """
campaign: c
defaults:
  task: {name: masked_lm, data: {train: {files: [x.txt]}}}
  model: {from: ./m}
jobs:
  - name: dense
    train: {num_epochs: 3, lr: {peak: 1.0e-4, warmup: 0.0, schedule: constant}}
  - name: sparse
    method: {name: gradual_magnitude, final_sparsity: 0.9, update_every: 10}
    train: {num_steps: 100, lr: {peak: 2.0e-4, warmup: 0.1}}
  - name: one-shot
    method:
      name: gradual_magnitude
      initial_sparsity: 0.5
      final_sparsity: 0.5
      growth_window: [0, 0]
      selection_window: [0, 0]
    train: {num_steps: 7, lr: {peak: 2.0e-4}}
"""


@pytest.fixture
def campaign() -> Campaign:
    return load_text(RECIPE)


def test_a_job_that_prunes_nothing_has_no_sparsity(campaign: Campaign) -> None:
    job = curves(campaign.jobs[0])
    assert (job.sparsity, job.updates, job.known) == ((), (), False)
    assert set(job.learning_rate) == {1e-4}


def test_sparsity_moves_at_the_updates_alone(campaign: Campaign) -> None:
    job = curves(campaign.jobs[1])
    assert job.updates == (0, 10, 20, 30, 40, 50, 60, 70, 80)
    assert len(job.sparsity) == 101
    assert job.sparsity[10] == job.sparsity[19] == pytest.approx(0.9 - 0.9 * 0.8**3)  # (1 - 10 / 50) cubed
    assert job.sparsity[9] == 0.0
    assert set(job.sparsity[50:]) == {0.9}
    assert job.learning_rate[0] == 0.0
    assert max(job.learning_rate) == job.learning_rate[10] == 2e-4
    assert len(job.learning_rate) == 100


def test_one_shot_is_one_update_at_the_start(campaign: Campaign) -> None:
    job = curves(campaign.jobs[2])
    assert job.updates == (0,)
    assert set(job.sparsity) == {0.5}


def test_a_rising_line_dot_by_dot() -> None:
    # 2 characters are 4 columns and 4 rows of dots: one dot in each, from the lower left to the upper right.
    assert chart([0.0, 1.0, 2.0, 3.0], 3.0, 2, 1) == ["⡠⠊"]
    assert chart([3.0], 3.0, 2, 1) == ["⠉⠉"]
    assert chart([0.0], 3.0, 1, 2) == ["⠀", "⣀"]


def test_a_jump_leaves_no_hole() -> None:
    left_below, right_above = 0x40, 0x08 + 0x10 + 0x20
    assert chart([0.0, 1.0], 1.0, 1, 1) == [chr(0x2800 + left_below + right_above)]


def test_the_page_fits_its_width_and_says_what_happens(campaign: Campaign) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(page(campaign, 80))
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "dense: masked_lm x dense, 3 epochs, drawn as 1,000 steps" in text
    assert "0.9 from step 50; masks chosen 9 times, the last after step 80" in text


def test_the_picture(campaign: Campaign, tmp_path: Path) -> None:
    save_png(campaign, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(Refused, match="cannot be written"):
        save_png(campaign, tmp_path / "no" / "plan.png")


def test_the_command_draws_every_job_without_a_server(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    drawn = CliRunner().invoke(app, ["plan", str(tmp_path / "r.yaml"), "--png", str(tmp_path / "r.png")])
    assert drawn.exit_code == 0, drawn.output
    for title in ("dense: masked_lm", "sparse: masked_lm", "one-shot: masked_lm"):
        assert title in drawn.stdout
    assert (tmp_path / "r.png").is_file()


def test_a_plan_of_two_of_four_goes_in_quarters_as_the_job_does() -> None:
    text = RECIPE.replace("final_sparsity: 0.9, update_every: 10", "pattern: 2:4, final_sparsity: 0.5, update_every: 1")
    sparsity = curves(load_text(text).jobs[1]).sparsity
    assert sorted(set(sparsity)) == [0.0, 0.25, 0.5]
    assert list(sparsity) == sorted(sparsity)
