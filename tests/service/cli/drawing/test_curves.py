"""Curves against the schedules' own points."""

import pytest

from prunus.configs import Campaign, load_text
from prunus.service.cli.drawing.curves import curves
from tests.service.cli.drawing.conftest import RECIPE


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


def test_a_plan_of_two_of_four_goes_in_quarters_as_the_job_does() -> None:
    text = RECIPE.replace("final_sparsity: 0.9, update_every: 10", "pattern: 2:4, final_sparsity: 0.5, update_every: 1")
    sparsity = curves(load_text(text).jobs[1]).sparsity
    assert sorted(set(sparsity)) == [0.0, 0.25, 0.5]
    assert list(sparsity) == sorted(sparsity)
