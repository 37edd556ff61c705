"""Recipes of speech: what is taken, what is refused and in which words; the tri-stage learning rate by hand."""

import math
from pathlib import Path

import pytest

from prunus.configs import JobSpec, load_text
from prunus.configs.specs.training import LearningRate, lr_factor
from prunus.configs.tasks.ctc import CTC
from tests.configs.recipe_texts import refusal

JOB = """\
name: a
task: {name: ctc, data: {train: {files: [es/train.tsv], language: es}}}
model: {from: org/x}
train: {num_steps: 10, weight_decay: 0.0, lr: {peak: 5e-5}}
"""


def spec(text: str = JOB, base: Path | None = None) -> JobSpec:
    [job] = load_text(text, file="r.yaml", base=base).jobs
    assert isinstance(job, JobSpec)
    return job


def bent(old: str, new: str) -> str:
    assert old in JOB
    return JOB.replace(old, new)


def test_one_source_is_a_list_of_one_and_paths_are_made_absolute() -> None:
    task = spec(base=Path("/corpus")).task
    assert isinstance(task, CTC)
    assert [source.files for source in task.data.train] == [("/corpus/es/train.tsv",)]
    several = bent("{files: [es/train.tsv], language: es}", "[{files: [a.tsv], clips: c}, {files: [b.tsv]}]")
    task = spec(several, base=Path("/corpus")).task
    assert isinstance(task, CTC)
    assert [source.clips for source in task.data.train] == ["/corpus/c", None]
    assert list(task.data.sources) == ["train[0]", "train[1]"]
    own = spec(JOB.replace("train.tsv], language: es}}}", "t]}}, transcripts: {vocabulary: v.json}}"), Path("/v")).task
    assert isinstance(own, CTC)
    assert own.transcripts.vocabulary == "/v/v.json"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("num_steps: 10", "num_steps: 10, batch_seconds: 9, batch_size: 4", "batch_seconds stands in place of"),
        ("num_steps: 10", "num_steps: 10, micro_batch_seconds: 4", "micro_batch_seconds goes with batch_seconds"),
        ("{from: org/x}", "{from: org/x, config: {layerdrop: 0.1}}", "model.config.layerdrop: ranks that drop"),
        ("lr: {peak: 5e-5}", "lr: {peak: 5e-5, schedule: tri_stage, warmup: 0.7}", "are more than the whole job"),
        ("language: es}", "language: es}, max_s: 0.1", "max_s 0.1 is not above min_s 0.25"),
        ("language: es}", "language: es, layuot: mls}", "unknown key 'layuot'; did you mean 'layout'"),
        ("files: [es/train.tsv], ", "", "give exactly one of files and hub"),
    ],
)
def test_a_mistake_is_refused_with_a_remedy(old: str, new: str, expected: str) -> None:
    assert expected in refusal(bent(old, new))


def test_what_frozen_weights_and_text_tasks_cannot_have() -> None:
    frozen = bent("train.tsv], language: es}}}", "train.tsv]}}, freeze_updates: 5}").replace(", weight_decay: 0.0", "")
    assert "would shrink the weights that task.freeze_updates holds; set weight_decay: 0" in refusal(frozen)
    assert "task ctc learns from transcripts alone" in refusal(JOB + "distillation: {teacher: org/t}\n")
    text = "name: a\ntask: {name: masked_lm, data: {train: {files: [a.txt]}}}\nmodel: {from: org/x}\n"
    assert "train.batch_seconds counts audio, which task masked_lm has none of; use batch_size" in refusal(
        text + "train: {num_steps: 1, batch_seconds: 5, lr: {peak: 1e-4}}\n"
    )
    rewind = JOB.replace("{peak: 5e-5}", "{peak: 5e-5, schedule: linear_rewind}")
    assert "but method is parp" in refusal(rewind + "method: {name: parp, final_sparsity: 0.5}\n")
    groups = "method: {name: gradual_magnitude, final_sparsity: 0.5, pattern: rows, prunable: {biases: true}}\n"
    assert "pattern rows is made of rows and columns; leave biases out" in refusal(JOB + groups)


def test_batches_by_seconds_say_how_many_micro_batches_there_are() -> None:
    one = spec(bent("num_steps: 10", "num_steps: 10, batch_seconds: 400, micro_batch_seconds: 80"))
    assert one.accumulation_steps == 5
    two = spec(
        bent("num_steps: 10", "num_steps: 10, batch_seconds: 400, micro_batch_seconds: 80")
        + "resources: {num_ranks: 2}\n"
    )
    assert two.accumulation_steps == 3
    assert spec(bent("num_steps: 10", "num_steps: 10, batch_seconds: 400")).accumulation_steps == 1
    again = JobSpec.model_validate_json(one.model_dump_json(by_alias=True))
    assert again == one


def test_a_mask_of_another_job_is_a_parent() -> None:
    for method in ("name: parp, final_sparsity: 0.5", "name: locked", "name: gradual_magnitude, final_sparsity: 0.5"):
        job = spec(JOB + f"method: {{{method}, mask: 'job:other'}}\n")
        assert job.sources["mask"] == "job:other"
        assert job.parents == ("other",)
    assert "mask" not in spec(JOB + "method: {name: parp, final_sparsity: 0.5}\n").sources


def test_tri_stage_rises_holds_and_falls() -> None:
    """wav2vec 2.0: 10% from 0.01, 40% at the peak, 50% exponentially to 0.05 of it."""
    lr = LearningRate(peak=1.0, schedule="tri_stage", warmup=0.1, hold=0.4)
    method = spec().method
    points = {0: 0.01, 5: 0.505, 10: 1.0, 49: 1.0, 50: 1.0, 75: math.sqrt(0.05), 100: 0.05}
    for step, expected in points.items():
        assert lr_factor(step, 100, lr, method) == pytest.approx(expected, rel=1e-12), step


@pytest.mark.parametrize("language", ["xx", "spanish", "e", "es_", "zh/TW", "123", "qj-DE"])
def test_an_unknown_language_is_refused_before_the_job_is_queued(language: str) -> None:
    expected = f"r.yaml:2: task.data.train[0].language: '{language}' is no language code; write one of ISO 639"
    assert refusal(bent("language: es", f"language: '{language}'")).startswith(expected)
