"""Numbers of units, and the tokenizer that is saved beside the model."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2Processor

from prunus.configs.tasks.speech_data import TranscriptRules
from prunus.jobs.data.speech.units.vocabulary import build_vocabulary
from prunus.jobs.errors import DataError
from tests.jobs.data.speech.speech_corpus import speech_input

CHARACTERS, PHONES = TranscriptRules(), TranscriptRules(units="phones")


def test_characters_are_sorted_behind_the_special_tokens() -> None:
    vocabulary = build_vocabulary(CHARACTERS, speech_input(), [tuple("ba|c"), tuple("a")])
    assert vocabulary.tokens == ("<pad>", "<unk>", "|", "a", "b", "c")
    assert vocabulary.encode(tuple("ab|z")).tolist() == [3, 4, 2, 1]
    assert vocabulary.lacks("z") and not vocabulary.lacks("|")


def test_phones_have_no_delimiter_and_never_mean_a_special_token() -> None:
    vocabulary = build_vocabulary(PHONES, speech_input(), [("tʃ", "a", "<pad>", "<unk>")])
    assert vocabulary.tokens == ("<pad>", "<unk>", "a", "tʃ")
    assert vocabulary.encode(("<pad>", "tʃ")).tolist() == [1, 3]


@pytest.mark.parametrize(("rules", "ids", "text"), [
    (CHARACTERS, [3, 3, 0, 3, 2, 5, 5], "aa c"),
    (PHONES, [2, 2, 0, 3], "atʃ"),  # spaces_between_special_tokens puts spaces between them
])  # fmt: skip
def test_the_processor_survives_saving_and_decodes(tmp_path: Path, rules: Any, ids: Any, text: str) -> None:
    transcripts = [tuple("ab|c")] if rules is CHARACTERS else [("a", "tʃ")]
    vocabulary = build_vocabulary(rules, speech_input(), transcripts)
    vocabulary.processor(speech_input()).save_pretrained(tmp_path)
    processor = Wav2Vec2Processor.from_pretrained(tmp_path)
    assert processor.decode(ids) == text
    assert processor.feature_extractor.sampling_rate == 16000
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)
    assert tokenizer.pad_token_id == 0
    assert tokenizer("a tʃ" if rules is PHONES else "b a").input_ids == ([2, 3] if rules is PHONES else [4, 2, 3])
    numbers = tokenizer.get_vocab()  # as prunus.jobs.models.load reads the units of a checkpoint
    assert tuple(sorted(numbers, key=lambda token: numbers[token])) == vocabulary.tokens
    assert sorted(numbers.values()) == list(range(len(vocabulary)))


def test_the_models_own_units() -> None:
    tokens = ("[PAD]", "[UNK]", "|", "b", "a")
    vocabulary = build_vocabulary(
        TranscriptRules(vocabulary="model"), speech_input(tokens=tokens, vocab_size=5, pad_token_id=0), []
    )
    assert vocabulary.tokens == ("[PAD]", "[UNK]", "|", "b", "a")
    assert vocabulary.encode(tuple("ab?")).tolist() == [4, 3, 1]
    assert vocabulary.processor(speech_input()).tokenizer.pad_token == "[PAD]"


def test_facebooks_order_of_tokens() -> None:
    tokens = ("<pad>", "<s>", "</s>", "<unk>", "|", "E")
    inputs = speech_input(tokens=tokens, vocab_size=6)
    vocabulary = build_vocabulary(TranscriptRules(vocabulary="model"), inputs, [])
    assert vocabulary.tokens == tokens
    tokenizer = vocabulary.processor(inputs).tokenizer
    assert len(tokenizer) == 6 and tokenizer.bos_token == "<s>"


def test_a_model_without_units_is_refused() -> None:
    with pytest.raises(DataError, match=r"vocabulary: model, but the starting checkpoint has no units.*use train"):
        build_vocabulary(TranscriptRules(vocabulary="model"), speech_input(), [])


def _from_file(tmp_path: Path, content: Any, rules: Any = CHARACTERS) -> Any:
    path = tmp_path / "vocab.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return build_vocabulary(rules.model_copy(update={"vocabulary": str(path)}), speech_input(), [])


def test_a_file_gives_units_and_numbers(tmp_path: Path) -> None:
    vocabulary = _from_file(tmp_path, {"a": 0, "|": 1, "<unk>": 2, "<pad>": 3})
    assert vocabulary.tokens == ("a", "|", "<unk>", "<pad>")
    assert vocabulary.processor(speech_input()).tokenizer.pad_token_id == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        (["a"], "must map each unit to a number of its own"),
        ({"<pad>": 0, "<unk>": 1, "|": 3}, "must map each unit to a number of its own"),
        ({"<pad>": 0, "<unk>": 0, "|": 1}, "must map each unit to a number of its own"),
        ({"<unk>": 0, "|": 1}, "has no '<pad>', the blank of CTC; add it"),
        ({"<pad>": 0, "|": 1}, "has no '<unk>'"),
        ({"<pad>": 0, "<unk>": 1}, r"has no '\|' between words; add it, or set task.transcripts.units: phones"),
    ],
)
def test_a_file_that_cannot_serve_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _from_file(tmp_path, content)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"vocab\.json cannot be read \(No such file or directory\); write train"):
        build_vocabulary(TranscriptRules(vocabulary=str(tmp_path / "vocab.json")), speech_input(), [])
