"""Clips without transcripts as batches of pre-training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prunus.configs import JobSpec
from prunus.jobs.data.build import build_data
from prunus.jobs.data.pipeline.batches import TaskData
from prunus.jobs.errors import DataError
from tests.jobs.data.speech.speech_corpus import lengths_corpus, speech_input, write_clip
from tests.jobs.lone_rank import make_ranks

NUM_CLIPS = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of 0.4 to 1.2 s, and no transcript anywhere."""
    root = tmp_path_factory.mktemp("tones")
    for number in range(NUM_CLIPS):
        write_clip(root / f"{number}.wav", 0.4 + 0.1 * number, pitch_hz=200 + 50 * number)
    return root


def task(train: Path, eval_files: Path | None = None, **options: Any) -> dict[str, Any]:
    data = {"train": {"files": [str(train)]}} | ({"eval": {"files": [str(eval_files)]}} if eval_files else {})
    data |= {key[5:]: options.pop(key) for key in list(options) if key.startswith("data_")}
    return {"name": "wav2vec2_pretraining", "data": data, "num_negatives": 6, **options}


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., TaskData]:
    def prepare(given: dict[str, Any], rank: int = 0, world_size: int = 1, **train: Any) -> TaskData:
        sizes = {} if "batch_seconds" in train else {"batch_size": 4}
        text = {
            "name": "j",
            "task": given,
            "model": {"from": "some/model"},
            "train": {"num_steps": 5, "lr": {"peak": 1e-3}, **sizes, **train},
            "resources": {"num_ranks": world_size},
        }
        spec = JobSpec.model_validate(text)
        return build_data(spec, speech_input(), tmp_path / "cache", make_ranks(rank, world_size))

    return prepare


def by_clip(batches: list[dict[str, torch.Tensor]]) -> dict[int, dict[str, torch.Tensor]]:
    """Rows by the number of their samples, which no two clips share; padding cut off."""
    found = {}
    for batch in batches:
        for row in range(len(batch["weight"])):
            samples = int(batch["attention_mask"][row].sum())
            frames = speech_input().frames(samples)
            found[samples] = {
                "input_values": batch["input_values"][row, :samples],
                "time_mask": batch["time_mask"][row, :frames],
                "negatives": batch["negatives"][row, :frames],
            }
            assert batch["time_mask"].shape[1] == speech_input().frames(batch["input_values"].shape[1])
            assert not batch["time_mask"][row, frames:].any()
    return found


def test_a_directory_of_recordings_is_enough(prepare: Callable[..., TaskData], folder: Path) -> None:
    data = prepare(task(folder, folder))
    assert data.num_train_sequences == NUM_CLIPS
    assert data.labels == ()
    assert data.facts["data/clips"] == NUM_CLIPS
    assert data.facts["data/hours"] == pytest.approx(sum(0.4 + 0.1 * i for i in range(NUM_CLIPS)) / 3600, rel=1e-3)
    batch = data.train.at(0)[0]
    assert batch["time_mask"].dtype == torch.bool
    assert batch["negatives"].dtype == torch.int64
    assert batch["time_mask"].any(1).all()


def test_transcripts_that_are_there_are_not_looked_at(prepare: Callable[..., TaskData], tmp_path: Path) -> None:
    table = lengths_corpus(tmp_path / "corpus", 5)
    text = table.read_text(encoding="utf-8").replace("aa aa", "").replace("ba ab", "  ")
    table.write_text(text, encoding="utf-8")
    assert prepare(task(table)).num_train_sequences == 5


@pytest.mark.parametrize("train", [{"batch_size": 4}, {"batch_seconds": 4.0, "micro_batch_seconds": 2.0}])
def test_clips_and_masks_of_a_step_are_the_same_on_any_number_of_ranks(
    prepare: Callable[..., TaskData], folder: Path, train: dict[str, Any]
) -> None:
    given = task(folder)
    for step in range(4):
        alone = by_clip(prepare(given, **train).train.at(step))
        shared = [batch for rank in (0, 1) for batch in prepare(given, rank, 2, **train).train.at(step)]
        together = by_clip([b for b in shared if b["weight"].any()])
        assert alone.keys() == together.keys()
        for samples, row in alone.items():
            assert all(torch.equal(row[name], together[samples][name]) for name in row)


def test_masks_change_with_the_epoch_but_not_in_evaluation(prepare: Callable[..., TaskData], folder: Path) -> None:
    data = prepare(task(folder, folder), batch_size=NUM_CLIPS)
    first, second = (by_clip(data.train.at(step)) for step in (0, 1))
    assert first.keys() == second.keys()
    assert all(not torch.equal(first[s]["negatives"], second[s]["negatives"]) for s in first)
    assert data.eval is not None
    once, again = by_clip(list(data.eval)), by_clip(list(data.eval))
    assert once.keys() == first.keys()
    assert all(torch.equal(once[s]["negatives"], again[s]["negatives"]) for s in once)


def test_what_is_saved_is_the_feature_extractor(prepare: Callable[..., TaskData], folder: Path, tmp_path: Path) -> None:
    prepare(task(folder)).processor.save_pretrained(tmp_path / "saved")
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["preprocessor_config.json"]


def test_the_digest_changes_with_what_changes_a_batch_and_not_with_the_rest(
    prepare: Callable[..., TaskData], folder: Path
) -> None:
    plain = prepare(task(folder)).digest
    assert prepare(task(folder)).digest == plain
    assert prepare(task(folder, num_negatives=5)).digest != plain
    assert prepare(task(folder, data_group_by_length=False)).digest != plain


def test_clips_shorter_than_a_span_are_left_out_and_if_all_held_out_ones_are_the_job_is_refused(
    prepare: Callable[..., TaskData], folder: Path, tmp_path: Path
) -> None:
    data = prepare(task(folder, time_length=30))  # 30 frames: 9680 samples
    assert data.num_train_sequences == 6  # of 0.7 s and more
    short = write_clip(tmp_path / "short" / "a.wav", 0.3)
    with pytest.raises(DataError, match=r"task.data.eval: the longest clip has 14 frames, task.time_length is 20"):
        prepare(task(folder, short.parent, time_length=20))
