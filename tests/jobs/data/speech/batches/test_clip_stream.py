"""Hub data sets: downloaded and decoded once, or read as a stream; the same batches for any number of ranks."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import soundfile

from prunus.jobs.data.build import build_data
from prunus.jobs.data.pipeline import stream
from prunus.jobs.data.pipeline.batches import TaskData
from prunus.jobs.errors import DataError
from tests.jobs.data.speech.speech_corpus import RATE, ctc_spec, ctc_task, hub_data, speech_input, tone
from tests.jobs.lone_rank import MakeRanks

NUM_CLIPS = 13
HUB = {"hub": "some/speech", "language": "es"}
MODEL = ("<pad>", "<unk>", "|", *"abcdefghijklmn")


def _flac(seconds: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(seconds), RATE, format="FLAC")
    return file.getvalue()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SHUFFLE_ROWS", 5)
    audio = [_flac(0.3 + 0.05 * (i * 5 % NUM_CLIPS)) for i in range(NUM_CLIPS)]
    texts = ["abcdefghijklm"[i] + " n" for i in range(NUM_CLIPS)]

    def load(*_args: object, streaming: bool = False, **_kwargs: object) -> Any:
        held = hub_data(audio, texts)
        return held.to_iterable_dataset() if streaming else held

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr("prunus.jobs.data.pipeline.rows.Rows.fingerprint", lambda _self: "revision")


@pytest.fixture
def prepare(tmp_path: Path, ranks: MakeRanks, hub: Any) -> Any:
    def make(
        rank: int = 0, world: int = 1, sees_padding: bool = True, streaming: bool = True, **options: Any
    ) -> TaskData:
        rules = options.pop("transcripts", {"vocabulary": "model"})
        task = ctc_task(HUB, HUB, data_streaming=streaming, data_min_s=0.1, transcripts=rules)
        task["data"].update(options.pop("data", {}))
        inputs = speech_input(sees_padding=sees_padding, tokens=MODEL, vocab_size=len(MODEL))
        return build_data(ctc_spec(task, world, **options), inputs, tmp_path / "cache", ranks(rank, world))

    return make


def _first_units(batches: list) -> list[int]:
    return [int(row[0]) for batch in batches for row in batch["labels"]]


def _values(batches: list) -> list[bytes]:
    return [
        row[: int(mask.sum())].numpy().tobytes()
        for batch in batches
        for row, mask in zip(batch["input_values"], batch["attention_mask"], strict=True)
    ]


def test_a_downloaded_data_set_is_decoded_once(prepare: Callable[..., Any]) -> None:
    data = prepare(streaming=False, batch_size=4, transcripts={"vocabulary": "train"})
    assert data.num_train_sequences == NUM_CLIPS == data.eval.num_rows
    assert data.labels == MODEL
    assert prepare(streaming=False, batch_size=4, transcripts={"vocabulary": "train"}).digest == data.digest


def test_a_stream_shows_every_clip_once_an_epoch(prepare: Callable[..., Any]) -> None:
    data = prepare(batch_size=1)
    assert data.num_train_sequences is None and data.eval.num_rows == NUM_CLIPS
    seen = [_first_units(data.train.at(step))[0] for step in range(2 * NUM_CLIPS)]
    assert sorted(seen[:NUM_CLIPS]) == sorted(seen[NUM_CLIPS:]) == list(range(3, 3 + NUM_CLIPS))
    assert seen[:NUM_CLIPS] != seen[NUM_CLIPS:]


@pytest.mark.parametrize("sees_padding", [True, False])
@pytest.mark.parametrize("world", [2, 3])
def test_every_number_of_ranks_sees_the_same_batches(
    prepare: Callable[..., Any], world: int, sees_padding: Any
) -> None:
    alone = prepare(sees_padding=sees_padding, batch_size=6).train
    gang = [prepare(rank, world, sees_padding, batch_size=6).train for rank in range(world)]
    for step in range(5):
        whole, parts = alone.at(step), [batch for train in gang for batch in train.at(step)]
        assert _values(whole) == _values(parts)
        assert _first_units(whole) == _first_units(parts)
        masked = [[n for batch in side for n in batch["time_mask"].sum(1).tolist()] for side in (whole, parts)]
        assert masked[0] == masked[1]
        if not sees_padding:
            assert len({batch["input_values"].shape[1] for batch in [*whole, *parts]}) == 1


@pytest.mark.parametrize("cut", [0, 1, 4, 7])
def test_a_resumed_stream_continues_exactly(prepare: Callable[..., Any], cut: Any) -> None:
    train = prepare(batch_size=3).train
    unbroken = [_values(train.at(step)) for step in range(9)]
    first = prepare(batch_size=3).train
    for step in range(cut):
        first.at(step)
    resumed = prepare(batch_size=3).train
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [_values(resumed.at(step)) for step in range(cut, 9)] == unbroken[cut:]


@pytest.fixture
def train_rows(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the train split; the eval split holds one clip."""

    def replace(audio: list[bytes], texts: list[str]) -> None:
        def load(*_args: object, streaming: bool = False, **_kwargs: object) -> Any:
            return hub_data(audio, texts).to_iterable_dataset() if streaming else hub_data([_flac(0.5)], ["ab"])

        monkeypatch.setattr(datasets, "load_dataset", load)

    return replace


def test_bad_rows_of_a_stream_are_left_out_or_end_the_job(prepare: Callable[..., Any], train_rows: Any) -> None:
    train_rows([_flac(0.5), b"junk", _flac(0.5)] * 4, ["ab", "ab", "?"] * 4)
    assert _first_units(prepare(batch_size=4, data={"max_bad": 0.9}).train.at(0)) == [3] * 4
    with pytest.raises(DataError, match=r"3 of 5 clips \(60\.0%\) are bad.*row 2: cannot be decoded"):
        prepare(batch_size=4).train.at(0)


def test_a_stream_without_a_usable_clip_is_an_error(prepare: Callable[..., Any], train_rows: Any) -> None:
    train_rows([_flac(0.05)] * 8, ["ab"] * 8)
    with pytest.raises(DataError, match=r"none of 5 clips can be used: 5 too_short \(row 1: 0\.05 s"):
        prepare(batch_size=4).train.at(0)


def test_an_unknown_unit_in_a_stream_may_be_refused(prepare: Callable[..., Any], train_rows: Any) -> None:
    train_rows([_flac(0.5)] * 4, ["ab", "ab", "aña", "ab"])
    (batch,) = prepare(batch_size=4).train.at(0)
    assert [3, 1, 3] in batch["labels"].tolist()
    refusing = prepare(batch_size=4, transcripts={"vocabulary": "model", "unknown": "refuse"})
    with pytest.raises(DataError, match=r"row 3 holds 'ñ', which is not in the vocabulary"):
        refusing.train.at(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transcripts": {"vocabulary": "train"}, "batch_size": 4}, "vocabulary: train"),
        ({"data": {"minutes": 1.0}, "batch_size": 4}, r"data\.minutes"),
        ({"batch_seconds": 10.0}, r"train\.batch_seconds"),
        ({"data": {"train": [HUB, HUB]}, "batch_size": 4}, "several train sources"),
    ],
)
def test_what_a_stream_cannot_know_is_refused_with_a_way_out(
    prepare: Callable[..., Any], change: Any, message: str
) -> None:
    with pytest.raises(DataError, match=rf"row by row, which cannot serve .*{message}.*or drop streaming"):
        prepare(**change)
