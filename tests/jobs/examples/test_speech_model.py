"""The starting directory: what a job needs to begin from nothing, and no weights."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForPreTraining, Data2VecAudioConfig, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor

from prunus.configs.tasks.speech_data import TranscriptRules
from prunus.jobs.data.speech.units.vocabulary import build_vocabulary
from prunus.jobs.errors import ModelError
from prunus.jobs.examples.speech_model import main, small_config
from prunus.jobs.models.compatibility import check_same_units
from prunus.jobs.models.inputs import load_speech_input
from prunus.jobs.models.sources import Origin


def test_it_holds_configuration_and_feature_extractor_and_no_weights(tmp_path: Path) -> None:
    assert main([str(tmp_path / "start"), "--hidden", "64", "--layers", "2", "--codes", "16"]) == 0
    assert sorted(path.name for path in (tmp_path / "start").iterdir()) == ["config.json", "preprocessor_config.json"]
    inputs = load_speech_input(Origin("start", str(tmp_path / "start"), None, "start"))
    assert (inputs.sampling_rate, inputs.sees_padding, inputs.tokens) == (16_000, True, ())
    assert inputs.frames(16_000) == 49
    assert inputs.extractor.do_normalize
    assert (inputs.config.hidden_size, inputs.config.num_hidden_layers) == (64, 2)
    check_same_units(inputs, (), "start")


def test_as_it_stands_it_is_a_small_model() -> None:
    model = AutoModelForPreTraining.from_config(small_config())
    sizes = {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in ("wav2vec2", "quantizer")}
    assert 0.9e6 < sizes["wav2vec2"] < 1.0e6
    assert sizes["quantizer"] == 65 * 128 + 128 * 64  # projection with bias, codes
    assert hasattr(model.wav2vec2, "masked_spec_embed")


def test_every_convolution_may_have_its_own_width(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "start"), "--channels", "8,8,16,16,16,16,16"]) == 0
    config = load_speech_input(Origin("start", str(tmp_path / "start"), None, "start")).config
    assert tuple(config.conv_dim) == (8, 8, 16, 16, 16, 16, 16)
    assert tuple(small_config(channels=(24,)).conv_dim) == (24,) * 7
    with pytest.raises(SystemExit):
        main([str(tmp_path / "other"), "--channels", "8,16"])
    assert "channels has 2 numbers; give one, or one for each of 7" in capsys.readouterr().err


def test_a_width_that_cannot_be_split_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "start"), "--hidden", "100"])
    assert "hidden 100 is not a multiple of 16" in capsys.readouterr().err
    assert not (tmp_path / "start").exists()


def test_units_are_those_of_the_head_and_not_what_a_tokenizer_adds_behind_them(tmp_path: Path) -> None:
    """As the tutorials of transformers leave checkpoints: the tokenizer has <s> and </s>, the head has not."""
    units = ("a", "b", "|", "[UNK]", "[PAD]")
    file = tmp_path / "vocab.json"
    file.write_text(json.dumps({unit: number for number, unit in enumerate(units)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(file), unk_token="[UNK]", pad_token="[PAD]", word_delimiter_token="|")
    assert len(tokenizer) == 7
    tokenizer.save_pretrained(tmp_path)
    config = small_config()
    config.update({"vocab_size": 5, "pad_token_id": 4, "architectures": ["Wav2Vec2ForCTC"]})
    config.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    inputs = load_speech_input(Origin("start", str(tmp_path), None, "start"))
    assert inputs.tokens == units
    labels = build_vocabulary(TranscriptRules(vocabulary="model"), inputs, []).tokens
    check_same_units(inputs, labels, "start")  # the very units that the refusal advises


def test_a_model_of_another_family_is_refused(tmp_path: Path) -> None:
    Data2VecAudioConfig().save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"start is a Data2VecAudioConfig; speech tasks take models of the wav2vec 2"):
        load_speech_input(Origin("start", str(tmp_path), None, "start"))
