"""The starting directory: what a job needs to begin from nothing, and no weights."""

from pathlib import Path

import pytest
from transformers import AutoModelForPreTraining

from jobs.examples.speech_model import main, small_config
from jobs.models import Origin, check_same_units, load_speech_input


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


def test_a_width_that_cannot_be_split_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "start"), "--hidden", "100"])
    assert "hidden 100 is not a multiple of 16" in capsys.readouterr().err
    assert not (tmp_path / "start").exists()
