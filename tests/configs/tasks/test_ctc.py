"""What the spec of speech recognition refuses, and what the paper's recipes say of batches and steps."""

from pathlib import Path

import pytest

from prunus.configs import JobSpec, load_file
from prunus.configs.tasks.ctc import CTC
from tests.configs.recipe_texts import load, refusal

JOB = """\
name: a
task: {name: ctc, data: {train: {files: [a.tsv]}}, freeze_updates: 10}
model: {from: ./m}
train: {num_steps: 20, weight_decay: 0.0, lr: {peak: 5e-4}}
"""
LANGUAGES = Path(__file__).parents[3] / "configs/recipes/parp/languages.yaml"


def test_the_head_may_learn_alone_for_a_part_of_the_job() -> None:
    assert load(JOB).jobs
    assert load(JOB.replace("num_steps: 20", "num_epochs: 1")).jobs  # its steps are not known yet


@pytest.mark.parametrize("steps", [10, 5])
def test_a_job_in_which_the_head_alone_learns_is_refused(steps: int) -> None:
    message = refusal(JOB, f"train.num_steps={steps}")
    assert f"task.freeze_updates 10 leaves none of train.num_steps {steps}" in message
    assert "lower it, or train longer" in message


def test_ten_languages_have_the_papers_batches_and_steps() -> None:
    """parp.md, section 2.1: 1.28M samples x 5 x 4 GPUs; PARP 12k updates, none frozen; baselines 20k, 10k frozen."""
    jobs = {job.name: job for job in load_file(LANGUAGES, base=Path("/x")).jobs if isinstance(job, JobSpec)}
    for name, steps, frozen in (
        ("dense-es", 20_000, 10_000),
        ("mpi-es-0.5", 20_000, 10_000),
        ("omp-es-0.5", 20_000, 10_000),
        ("parp-es-0.5", 12_000, 0),
        ("parp-p-es-0.9", 12_000, 0),
    ):
        job = jobs[name]
        assert isinstance(job.task, CTC)
        assert (job.train.num_steps, job.task.freeze_updates) == (steps, frozen), name
        assert job.train.batch_seconds == 1_280_000 * 5 * 4 / 16_000, name
