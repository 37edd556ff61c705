"""ctc_data from end to end: what a batch holds, who gets which clips, what is kept on disk."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunus.jobs.data.build import build_data
from prunus.jobs.data.pipeline.batches import TaskData
from prunus.jobs.data.speech.clips import clip_cache
from prunus.jobs.errors import DataError
from tests.jobs.data.speech.speech_corpus import (
    RATE,
    common_voice,
    ctc_spec,
    ctc_task,
    lengths_corpus,
    speech_input,
    tone,
    write_clip,
)
from tests.jobs.lone_rank import MakeRanks


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("speech")
    return lengths_corpus(folder / "a"), lengths_corpus(folder / "b", 7, "test.tsv")


@pytest.fixture
def prepare(tmp_path: Path, ranks: MakeRanks, corpus: Any) -> Any:
    def make(
        rank: int = 0,
        world: int = 1,
        train: Any = None,
        held_out: Any = None,
        inputs: Any = None,
        task: Any = None,
        **options: Any,
    ) -> TaskData:
        spec = ctc_spec(ctc_task(train or corpus[0], held_out or corpus[1], **(task or {})), world, **options)
        return build_data(spec, inputs or speech_input(), tmp_path / "cache", ranks(rank, world))

    return make


def _rows(batches: Any) -> list[tuple]:
    """Each counted row without its padding: samples, labels, masked frames, masked channels."""
    rows = []
    for batch in batches:
        for row in range(len(batch["weight"])):
            if batch["weight"][row] == 0:
                continue
            length = int(batch["attention_mask"][row].sum())
            labels = tuple(x for x in batch["labels"][row].tolist() if x != -100)
            values = batch["input_values"][row, :length].numpy().tobytes()
            masked = tuple(
                batch[k][row].nonzero().flatten().tolist() for k in ("time_mask", "channel_mask") if k in batch
            )
            rows.append((values, labels, *masked))
    return rows


def test_a_batch_holds_what_the_objective_asks_for(prepare: Callable[..., Any]) -> None:
    inputs = speech_input()
    (batch,) = prepare(batch_size=4).train.at(0)
    values_BS, mask_BS, labels_BU = batch["input_values"], batch["attention_mask"], batch["labels"]
    assert values_BS.dtype == torch.float32 and mask_BS.dtype == labels_BU.dtype == batch["group"].dtype == torch.int64
    assert batch["weight"].tolist() == [1, 1, 1, 1] and batch["weight"].dtype == torch.float32
    lengths_B = mask_BS.sum(1)
    tenth = RATE // 10
    longest = int(lengths_B.max())
    assert values_BS.shape == mask_BS.shape == (4, longest + -longest % tenth)
    assert longest % tenth  # or nothing was added
    assert (values_BS[mask_BS == 0] == 0).all()
    frames = inputs.frames(values_BS.shape[1])
    assert batch["time_mask"].shape == (4, frames) and batch["channel_mask"].shape == (4, 128)
    assert batch["time_mask"].dtype == batch["channel_mask"].dtype == torch.bool
    for row, length in enumerate(lengths_B.tolist()):
        own = inputs.frames(length)
        assert batch["time_mask"][row, :own].any() and not batch["time_mask"][row, own:].any()
        assert values_BS[row, :length].mean().abs() < 1e-5
        assert values_BS[row, :length].var(unbiased=False) == pytest.approx(1, abs=1e-4)
    assert (labels_BU[:, 0] >= 3).all() and ((labels_BU == -100) | (labels_BU > 1)).all()


def test_samples_are_scaled_as_by_transformers_feature_extractor(prepare: Callable[..., Any], corpus: Any) -> None:
    inputs = speech_input()
    batches = list(prepare(batch_size=4).eval)
    longest = batches[0]["input_values"][0][batches[0]["attention_mask"][0] == 1]  # 6/7 of the way from 0.3 to 1.2 s
    clip = next(c for c in (corpus[1].parent / "clips").iterdir() if abs(c.stat().st_size - 2 * len(longest) - 44) < 4)
    number = int(clip.stem[2:])
    theirs = inputs.extractor(tone(len(longest) / RATE, pitch_hz=200 + 7 * number), sampling_rate=RATE).input_values[0]
    assert np.abs(longest.numpy() - theirs).max() < 2e-4  # 16 bits


def test_models_without_normalisation_hear_the_samples(prepare: Callable[..., Any]) -> None:
    batch = next(iter(prepare(batch_size=4, inputs=speech_input(do_normalize=False)).eval))
    assert batch["input_values"][0].abs().max() == pytest.approx(0.5, abs=1e-3)


def test_labels_processor_and_facts(prepare: Callable[..., Any]) -> None:
    data = prepare(batch_size=4)
    assert data.labels[:5] == ("<pad>", "<unk>", "|", "a", "b")
    assert data.num_train_sequences == 23 and data.steps_per_epoch is None
    assert data.eval_groups == () and data.eval.num_rows == 7
    assert data.facts["data/clips"] == 23 and data.facts["data/eval_clips"] == 7 and data.facts["data/skipped"] == 0
    assert data.facts["data/hours"] == pytest.approx(sum(0.3 + 0.9 * (i / 23) for i in range(23)) / 3600, rel=1e-3)
    assert data.facts["data/units"] == len(data.labels)
    texts = {data.processor.decode(labels, group_tokens=False) for _, labels in _rows(data.eval)}
    assert texts == {f"{letter}a ab" for letter in "abcdefg"}


BATCHES = [{"batch_size": 6}, {"batch_seconds": 6.0}, {"batch_seconds": 6.0, "micro_batch_seconds": 1.5}]


@pytest.mark.parametrize("train", BATCHES, ids=str)
@pytest.mark.parametrize("sees_padding", [True, False])
@pytest.mark.parametrize("world", [2, 3])
def test_every_number_of_ranks_sees_the_same_batches(
    prepare: Callable[..., Any], train: Any, sees_padding: Any, world: int
) -> None:
    inputs = speech_input(sees_padding=sees_padding)
    alone = prepare(inputs=inputs, **train)
    gang = [prepare(rank, world, inputs=inputs, **train) for rank in range(world)]
    assert len({data.digest for data in (alone, *gang)}) == 1
    for step in range(7):
        whole = alone.train.at(step)
        parts = [data.train.at(step) for data in gang]
        assert len({len(micro) for micro in parts}) == 1
        assert _rows(whole) == [row for micro in parts for row in _rows(micro)]
        if not sees_padding:
            assert len({b["input_values"].shape[1] for micro in [whole, *parts] for b in micro}) == 1


def test_a_model_that_is_not_told_of_padding_gets_the_longest_clip_of_the_step(prepare: Callable[..., Any]) -> None:
    inputs = speech_input(sees_padding=False)
    told = prepare(batch_size=6, micro_batch_size=2).train.at(1)
    untold = prepare(batch_size=6, micro_batch_size=2, inputs=inputs).train.at(1)
    lengths = [int(batch["attention_mask"].sum(1).max()) for batch in told]
    assert len(set(lengths)) == 3
    assert [b["input_values"].shape[1] for b in told] == [length + -length % (RATE // 10) for length in lengths]
    assert {b["input_values"].shape[1] for b in untold} == {max(lengths)}


def test_rows_that_only_fill_up_a_micro_batch_do_not_count(prepare: Callable[..., Any]) -> None:
    data = prepare(0, 4, batch_seconds=1.3)  # one to four clips a step
    fillers = 0
    for step in range(int(data.steps_per_epoch)):
        for rank in range(4):
            (batch,) = prepare(rank, 4, batch_seconds=1.3).train.at(step)
            assert batch["input_values"].shape[0] >= 1
            fillers += int((batch["weight"] == 0).sum())
    assert fillers > 0


def test_an_epoch_by_seconds_holds_every_clip_once(prepare: Callable[..., Any]) -> None:
    data = prepare(batch_seconds=3.0, micro_batch_seconds=1.5)
    steps = int(data.steps_per_epoch)
    rows = [row for step in range(steps) for row in _rows(data.train.at(step))]
    assert len(rows) == 23 == len({values for values, *_ in rows})
    for step in range(steps):
        for batch in data.train.at(step):
            assert batch["input_values"].numel() <= 1.5 * RATE


@pytest.mark.parametrize("train", BATCHES, ids=str)
def test_a_resume_needs_the_number_of_the_step_alone(prepare: Callable[..., Any], train: Any) -> None:
    unbroken = prepare(**train).train
    steps = [_rows(unbroken.at(step)) for step in range(12)]
    resumed = prepare(**train).train
    resumed.load_state_dict(unbroken.state_dict())
    assert [_rows(resumed.at(step)) for step in range(7, 12)] == steps[7:]


def test_masks_change_from_epoch_to_epoch(prepare: Callable[..., Any]) -> None:
    train = prepare(batch_size=23).train
    first, second = ({row[:2]: row[2:] for row in _rows(train.at(step))} for step in range(2))
    assert first.keys() == second.keys()
    assert sum(first[clip] != second[clip] for clip in first) > 20


def test_without_spec_augment_there_are_no_masks(prepare: Callable[..., Any]) -> None:
    (batch,) = prepare(batch_size=4, task={"spec_augment": None}).train.at(0)
    assert {"time_mask", "channel_mask"}.isdisjoint(batch)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("train", BATCHES[:2], ids=str)
def test_evaluation_hears_each_clip_once_and_gives_ranks_equally_many_batches(
    prepare: Callable[..., Any], train: Any, world: int
) -> None:
    gang = [prepare(rank, world, **train).eval for rank in range(world)]
    assert len({len(part) for part in gang}) == 1
    batches = [batch for part in gang for batch in part]
    assert len({values for values, _ in _rows(batches)}) == 7
    assert sum(float(batch["weight"].sum()) for batch in batches) == 7
    assert all({"time_mask", "channel_mask"}.isdisjoint(batch) for batch in batches)


def test_models_that_are_not_told_of_padding_are_evaluated_clip_by_clip(prepare: Callable[..., Any]) -> None:
    batches = list(prepare(batch_size=6, inputs=speech_input(sees_padding=False)).eval)
    assert len(batches) == 7
    assert all(batch["attention_mask"].all() for batch in batches)


def test_a_long_clip_is_evaluated_alone(prepare: Callable[..., Any], tmp_path: Path) -> None:
    held_out = common_voice(tmp_path / "long", [(f"{i}.wav", 3.0 if i == 2 else 0.4, "ab") for i in range(5)])
    batches = list(prepare(batch_size=4, held_out=held_out, task={"data_max_s": 1.3}).eval)
    assert [len(batch["weight"]) for batch in batches] == [1, 4]


def test_several_languages_share_a_vocabulary_and_are_told_apart(
    prepare: Callable[..., Any], corpus: Any, tmp_path: Path
) -> None:
    turkish = common_voice(tmp_path / "tr", [("a.wav", 0.5, "IŞIK"), ("b.wav", 0.5, "çok")])
    sources = [{"files": [str(corpus[0])], "language": "es"}, {"files": [str(turkish)], "language": "tr"}]
    data = prepare(batch_size=4, train=sources, held_out=[sources[1], {**sources[0], "files": [str(corpus[1])]}])
    assert data.eval_groups == ("tr", "es")
    assert {"ı", "ş", "ç"} <= set(data.labels) and "i" in data.labels  # i is Spanish, of the first source
    groups = torch.cat([batch["group"] for batch in data.eval]).tolist()
    assert sorted(groups) == [0] * 2 + [1] * 7
    assert data.facts["data/clips"] == 25
    train_groups = {int(g) for step in range(7) for b in data.train.at(step) for g in b["group"]}
    assert train_groups == {0, 1}


@pytest.mark.parametrize(("text", "told"), [("bueno trabajo mundo", True), ("t\u0361\u0283\u02d0 a \u00f0", False)])
def test_sentences_where_phones_are_asked_for_are_told(
    prepare: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, told: Any
) -> None:
    train = common_voice(tmp_path / "es", [(f"c{i}.wav", 1.0, text) for i in range(4)])
    prepare(train=train, held_out=train, task={"transcripts": {"units": "phones"}}, batch_size=2)
    assert ("most of the 5 units look like words: 'bueno', 'mundo', 'trabajo'" in caplog.text) is told


def test_two_test_sets_of_one_language_are_told_apart_by_their_names(prepare: Callable[..., Any], corpus: Any) -> None:
    clean, other = ({"files": [str(path)], "language": "en"} for path in corpus)
    assert prepare(held_out=[clean, other]).eval_groups == ()
    data = prepare(held_out=[{**clean, "name": "test-clean"}, {**other, "name": "test-other"}])
    assert data.eval_groups == ("test-clean", "test-other")
    groups = torch.cat([batch["group"] for batch in data.eval]).tolist()
    assert sorted(groups) == [0] * 23 + [1] * 7


def test_units_outside_the_vocabulary(
    prepare: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held_out = common_voice(tmp_path / "x", [("a.wav", 0.5, "ab ñ")])
    with caplog.at_level(logging.WARNING):
        data = prepare(batch_size=4, held_out=held_out)
    assert "25.00% of the units are not in the vocabulary: 'ñ' 1 times; they count as <unk>" in caplog.text
    assert data.facts["data/eval_unknown_units"] == 0.25
    assert next(iter(data.eval))["labels"][0].tolist() == [3, 4, 2, 1]
    with pytest.raises(DataError, match=r"task\.data\.eval: 25\.00% .* 'ñ' 1 times; correct transcripts or vocabulary"):
        prepare(batch_size=4, held_out=held_out, task={"transcripts": {"unknown": "refuse"}})


def test_an_upper_case_vocabulary_is_not_taken_for_lower_case_text(prepare: Callable[..., Any]) -> None:
    tokens = ("<pad>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    inputs = speech_input(tokens=tokens, vocab_size=len(tokens))
    with pytest.raises(DataError, match=r"Nothing could be learned: compare task\.transcripts\.lowercase"):
        prepare(batch_size=4, inputs=inputs, task={"transcripts": {"vocabulary": "model"}})


def test_bad_clips_are_named_counted_and_too_many_of_them_end_the_job(
    prepare: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [(f"{i}.mp3", 0.6, "ab") for i in range(30)] + [("empty.mp3", 0.6, " … ")]
    table = common_voice(tmp_path / "cv", rows, rate=48000)
    clip = write_clip(tmp_path / "cv/clips/7.mp3", 3.0, 48000)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        data = prepare(batch_size=4, train=table, task={"data_max_bad": 0.1})
    assert data.num_train_sequences == 29
    assert data.facts["data/skipped_bad"] == 2 == data.facts["data/skipped"]
    assert "2 of 31 clips left out, bad: empty.mp3: no transcript is left" in caplog.text
    assert "7.mp3: cut off: " in caplog.text
    for _ in range(2):  # from the cache as well
        with pytest.raises(DataError, match=r"train\.tsv.*2 of 31 clips \(6\.5%\) are bad.*7\.mp3: cut off.*max_bad"):
            prepare(batch_size=4, train=table)


def test_clips_shorter_than_a_mask_are_left_out_of_training_alone(prepare: Callable[..., Any], tmp_path: Path) -> None:
    table = common_voice(tmp_path / "cv", [("a.wav", 0.2, "a"), ("b.wav", 0.5, "b")])
    task = {"data_min_s": 0.1}
    data = prepare(batch_size=1, train=table, held_out=table, task=task)  # 0.2 s are 9 frames, a span has 10
    assert data.facts["data/skipped_too_short"] == 1 and data.eval.num_rows == 2
    assert prepare(batch_size=1, train=table, task={**task, "spec_augment": None}).num_train_sequences == 2


def test_a_channel_span_wider_than_the_model_is_refused(prepare: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match=r"channel_length 256 is more than the model's 128 channels"):
        prepare(batch_size=4, task={"spec_augment": {"channel_length": 256}})


def test_a_clip_longer_than_a_micro_batch_is_refused(prepare: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match=r"train\.micro_batch_seconds 1 is less than the longest clip \(1\.2 s: tr"):
        prepare(batch_seconds=4.0, micro_batch_seconds=1.0)


def test_other_rules_share_the_decoded_audio(prepare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(batch_size=4)
    monkeypatch.setattr(clip_cache, "decode", None)
    phones = prepare(batch_size=4, task={"transcripts": {"units": "phones"}})
    assert phones.labels[2:4] == ("aa", "ab")
    assert prepare(batch_size=4).digest == first.digest != phones.digest


def test_changed_audio_or_text_is_seen(prepare: Callable[..., Any], tmp_path: Path) -> None:
    rows = [(f"{i}.wav", 0.5, "ab") for i in range(5)]
    table = common_voice(tmp_path / "cv", rows)
    digests = {prepare(batch_size=4, train=table).digest}
    write_clip(tmp_path / "cv/clips/3.wav", 0.5, pitch_hz=900)
    digests.add(prepare(batch_size=4, train=table).digest)
    table.write_text(table.read_text().replace("ab", "ba", 1))
    digests.add(prepare(batch_size=4, train=table).digest)
    assert len(digests) == 3


def test_data_that_was_moved_is_the_same_data(prepare: Callable[..., Any], tmp_path: Path) -> None:
    table = common_voice(tmp_path / "cv", [(f"{i}.wav", 0.5, "ab") for i in range(5)])
    before = prepare(batch_size=4, train=table, task={"data_streaming": True}).digest
    (tmp_path / "cv").rename(tmp_path / "moved")
    assert prepare(batch_size=4, train=tmp_path / "moved/train.tsv", task={"data_streaming": True}).digest == before


def test_an_interrupted_preparation_leaves_nothing_behind(
    prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = clip_cache.decode, []

    def decode(audio: Any, rate: int) -> Any:
        calls.append(audio)
        if len(calls) > 10:
            raise KeyboardInterrupt
        return original(audio, rate)

    monkeypatch.setattr(clip_cache, "decode", decode)
    with pytest.raises(KeyboardInterrupt):
        prepare(batch_size=4)
    assert not list((tmp_path / "cache").rglob("samples.bin"))
    monkeypatch.undo()
    assert prepare(batch_size=4).num_train_sequences == 23


@pytest.mark.parametrize("train", BATCHES[:2], ids=str)
def test_streaming_gives_the_same_batches_and_keeps_no_samples(
    prepare: Callable[..., Any], tmp_path: Path, train: Any
) -> None:
    streamed = prepare(task={"data_streaming": True}, **train)
    assert not list((tmp_path / "cache").rglob("samples.bin"))
    cached = prepare(**train)
    for step in (0, 1, 2, 9, 3):
        assert _rows(streamed.train.at(step)) == _rows(cached.train.at(step))
    assert _rows(streamed.eval) == _rows(cached.eval)


def test_a_clip_that_is_lost_while_streaming_does_not_count(
    prepare: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = common_voice(tmp_path / "cv", [(f"{i}.wav", 0.5, "ab") for i in range(8)])
    data = prepare(batch_size=8, train=table, task={"data_streaming": True, "data_max_bad": 0.2})
    (tmp_path / "cv/clips/3.wav").unlink()
    with caplog.at_level(logging.WARNING):
        (batch,) = data.train.at(0)
    assert sorted(batch["weight"].tolist()) == [0] + [1] * 7
    lost = int((batch["weight"] == 0).nonzero())
    assert (batch["input_values"][lost] == 0).all()
    assert "3.wav: no such file; it is left out" in caplog.text
    (tmp_path / "cv/clips/4.wav").unlink()
    (tmp_path / "cv/clips/5.wav").unlink()
    with pytest.raises(DataError, match=r"could not be decoded where they are used, more than task\.data\.max_bad 0"):
        for step in range(1, 3):
            data.train.at(step)


def test_ten_minutes_lie_in_an_hour_of_each_language(prepare: Callable[..., Any], corpus: Any, tmp_path: Path) -> None:
    other = lengths_corpus(tmp_path / "c", 17)
    sources = [{"files": [str(path)]} for path in (corpus[0], other)]
    small = prepare(batch_size=2, train=sources, task={"data_minutes": 0.05})
    large = prepare(batch_size=2, train=sources, task={"data_minutes": 0.15})
    clips = [
        {values for values, *_ in _rows(b for step in range(20) for b in d.train.at(step))} for d in (small, large)
    ]
    assert clips[0] < clips[1]
    assert 2 * 0.05 / 60 * 0.7 < small.facts["data/hours"] <= 2 * 0.05 / 60
