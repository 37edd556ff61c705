"""Greedy decoding and error rates, counted by hand; what a user is told of a model that says nothing."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from prunus.configs.tasks.ctc import CTC
from prunus.jobs.objectives.projection_loss import IGNORED
from prunus.jobs.ranks import Ranks
from prunus.jobs.tasks.ctc import CTCTask, collapse, count_errors

UNITS = ("<pad>", "<unk>", "|", "a", "b", "c")
DATA = {"train": {"files": ["x.tsv"]}}


def task(groups: tuple[str, ...] = ("es",), **spec: Any) -> CTCTask:
    tokenizer = SimpleNamespace(pad_token_id=0, unk_token="<unk>", word_delimiter_token="|")
    data: Any = SimpleNamespace(
        labels=UNITS,
        eval_groups=groups,
        processor=SimpleNamespace(tokenizer=tokenizer, feature_extractor=SimpleNamespace(sampling_rate=8000)),
    )
    return CTCTask(CTC.model_validate({"data": DATA, **spec}), data)


class Said:
    """An engine that says given units per frame, and a loss of 2 per batch."""

    def __init__(self, paths: list[list[list[int]]]) -> None:
        self._paths = iter(paths)

    def measure(self, batch: dict[str, torch.Tensor]) -> tuple[Any, torch.Tensor, Any]:
        best_BT = torch.tensor(next(self._paths))
        frames_B = (best_BT >= 0).sum(1)
        return None, torch.tensor([2.0, 0.0]), (best_BT.clamp(min=0), frames_B)


def batches(*parts: dict[str, list[Any]]) -> Iterator[dict[str, torch.Tensor]]:
    for part in parts:
        yield {
            "labels": torch.tensor(part["labels"]),
            "weight": torch.tensor(part.get("weight", [1.0] * len(part["labels"]))),
            "group": torch.tensor(part.get("group", [0] * len(part["labels"]))),
        }


def evaluate(one: CTCTask, engine: Any, *parts: dict[str, list[Any]]) -> dict[str, float]:
    return one.evaluate(engine, batches(*parts), Ranks(0, 1, torch.device("cpu")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "said"),
    [([3, 3, 0, 3, 4, 4], [3, 3, 4]), ([0, 0], []), ([], []), ([5], [5]), ([0, 3, 0, 0, 3, 3], [3, 3])],
)
def test_repeats_become_one_and_then_blanks_go(path: list[int], said: list[int]) -> None:
    assert collapse(np.asarray(path, dtype=np.int64), 0).tolist() == said


def test_rates_are_errors_over_units_meant() -> None:
    """Meant "ab c" and "a"; said "ab" and "b": 1 word of 3 is missing, 1 other; of 5 characters 2 missing, 1 other."""
    engine = Said([[[3, 4, 0, -1], [4, -1, -1, -1]]])
    metrics = evaluate(task(), engine, {"labels": [[3, 4, 2, 5], [3, IGNORED, IGNORED, IGNORED]]})
    assert metrics == {
        "eval/loss": pytest.approx(2.0 / 5),
        "eval/empty": 0.0,
        "eval/wer": pytest.approx(2 / 3),
        "eval/cer": pytest.approx(3 / 5),
    }


def test_rows_that_fill_up_do_not_count_and_each_language_has_its_own_line() -> None:
    engine = Said([[[3], [4], [5]], [[4], [4], [4]]])
    metrics = evaluate(
        task(("es", "tr")),
        engine,
        {"labels": [[3], [3], [3]], "group": [0, 0, 1]},
        {"labels": [[4], [3], [3]], "group": [1, 1, 1], "weight": [1.0, 0.0, 0.0]},
    )
    assert metrics["eval/cer"] == 2 / 4
    assert metrics["eval/cer/es"] == 1 / 2
    assert metrics["eval/cer/tr"] == 1 / 2
    assert metrics["eval/loss"] == 4.0 / 4


def test_phones_have_one_rate() -> None:
    metrics = evaluate(task(transcripts={"units": "phones"}), Said([[[3, 5]]]), {"labels": [[3, 4]]})
    assert metrics["eval/per"] == 1 / 2
    assert not {"eval/wer", "eval/cer"} & set(metrics)


def test_a_unit_outside_the_vocabulary_is_an_error_even_if_the_model_says_so() -> None:
    assert evaluate(task(), Said([[[1]]]), {"labels": [[1]]})["eval/cer"] == 1.0


def test_spaces_at_the_ends_are_no_errors() -> None:
    assert evaluate(task(), Said([[[2, 3, 2]]]), {"labels": [[3]]})["eval/cer"] == 0.0


def test_throughput_is_counted_at_the_models_own_rate() -> None:
    assert task().throughput == ("throughput/audio_s_per_s", 1 / 8000)


def test_nothing_meant_counts_nothing() -> None:
    assert not count_errors([], [], phones=False)


def test_a_model_that_says_nothing_is_named_as_collapsed() -> None:
    one = task()
    silent = evaluate(one, Said([[[0, 0], [0, 0]]]), {"labels": [[3], [4]]})
    assert silent["eval/empty"] == 1.0
    assert silent["eval/wer"] == 1.0
    assert "says nothing for 100% of the held-out clips: it has collapsed to blanks" in one.warning(silent)
    assert one.warning({**silent, "eval/empty": 0.5}) == ""
