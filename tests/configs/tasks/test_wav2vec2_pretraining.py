"""What the spec of wav2vec 2.0 pre-training refuses, and the paper's values that it has by itself."""

import pytest

from prunus.configs import ConfigError
from prunus.configs.tasks.wav2vec2_pretraining import Wav2Vec2Pretraining
from tests.configs.recipe_texts import load, refusal

JOB = """\
name: a
task: {name: wav2vec2_pretraining, data: {train: {files: [clips]}}}
model: {from: ./m, init: random}
train: {num_steps: 10, batch_seconds: 60, lr: {peak: 5e-4}}
"""


def test_it_needs_only_clips_and_the_rest_is_the_papers() -> None:
    task = load(JOB).jobs[0].task
    assert isinstance(task, Wav2Vec2Pretraining)
    assert (task.time_prob, task.time_length, task.num_negatives) == (0.65, 10, 100)
    assert (task.contrastive_temperature, task.diversity_weight) == (0.1, 0.1)
    assert (task.gumbel.max, task.gumbel.min, task.gumbel.decay) == (2.0, 0.5, 0.999995)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("distillation.teacher=org/t", "task wav2vec2_pretraining learns from the clips themselves alone"),
        ("model.config={layerdrop: 0.05}", "model.config.layerdrop: ranks that drop different layers"),
        ("task.time_prob=0", "task.time_prob"),
        ("task.num_negatives=0", "task.num_negatives"),
        ("task.contrastive_temperature=0", "task.contrastive_temperature"),
        ("task.diversity_weight=-1", "task.diversity_weight"),
        ("task.gumbel={min: 3}", "min 3.0 is above max 2.0"),
        ("task.gumbel={decay: 1.5}", "task.gumbel.decay"),
        ("task.transcripts={units: phones}", "task.transcripts"),
        ("method={name: locked}", "method locked with model.init random has no pattern to keep"),
    ],
)
def test_what_cannot_work_is_refused(override: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(JOB, override)
    assert words in str(caught.value)


def test_hub_data_sets_are_read_whole_and_files_may_be_decoded_at_use() -> None:
    message = refusal(JOB.replace("files: [clips]", "hub: org/speech"), "task.data.streaming=true")
    assert "data.streaming reads hub data sets as a stream for task ctc alone" in message
    assert load(JOB.replace("files: [clips]", "hub: org/speech")).jobs
    assert load(JOB.replace("num_steps: 10", "num_epochs: 1"), "task.data.streaming=true").jobs
