"""What a checkpoint says of its inputs: tokenizer or feature extractor."""

import contextlib
import hashlib
import json

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
)

from prunus.jobs.data.build import Inputs
from prunus.jobs.data.speech.speech_input import SpeechInput
from prunus.jobs.errors import ModelError
from prunus.jobs.models.sources import SPEECH_TASKS, Origin, first_line


def load_inputs(task: str, origin: Origin) -> Inputs:
    """Load what a source says of its inputs: its tokenizer, or its feature extractor and units.

    Raises:
        ModelError: It says nothing.
    """
    return load_speech_input(origin) if task in SPEECH_TASKS else load_tokenizer(origin)


def load_speech_input(origin: Origin) -> SpeechInput:
    """Load the feature extractor, configuration and units of a source.

    Raises:
        ModelError: It is no speech model, or not one of raw samples.
    """
    try:
        config = AutoConfig.from_pretrained(origin.location)
        extractor = AutoFeatureExtractor.from_pretrained(origin.location)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{origin.reference}: no feature extractor of a speech model can be loaded from it: {first_line(error)}"
        ) from error
    known = hasattr(config, "conv_stride") and hasattr(config, "feat_extract_norm")
    if not isinstance(extractor, Wav2Vec2FeatureExtractor) or not known:
        raise ModelError(
            f"{origin.reference} is a {type(config).__name__}; speech tasks take models of the wav2vec 2.0 family "
            "(wav2vec2, XLS-R, HuBERT, WavLM)"
        )
    if "conformer" in config.model_type:
        raise ModelError(
            f"{origin.reference} is a {type(config).__name__}, whose batch normalisation makes the result depend on "
            "how a batch is cut into ranks and micro-batches; use wav2vec2, XLS-R, HuBERT or WavLM"
        )
    tokens: tuple[str, ...] = ()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a pre-trained model has no units yet
        vocabulary = Wav2Vec2CTCTokenizer.from_pretrained(origin.location).get_vocab()
        # Tokenizers add <s> and </s> behind a vocabulary that has no such unit; the head knows nothing of them.
        tokens = tuple(sorted(vocabulary, key=lambda token: vocabulary[token]))[: config.vocab_size]
    return SpeechInput(extractor, config, tokens)


def load_tokenizer(origin: Origin) -> PreTrainedTokenizerBase:
    """Load the fast tokenizer of a source.

    Raises:
        ModelError: It has none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(origin.location)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{origin.reference}: no tokenizer can be loaded from it: {first_line(error)}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"{origin.reference}: only a slow tokenizer; save it with a tokenizer.json")
    return tokenizer


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the vocabulary (token -> id): equal digests mean that logits line up."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()
