"""What real runs of speech tasks start from in tests: a wav2vec 2.0 of 2 layers, and a language of tones.

Common Voice layout; "abc" is three tones of 120 ms, a space is silence. A model that hears at all can learn it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
import transformers
from transformers import Wav2Vec2FeatureExtractor

RATE = 16_000
LETTERS = "abcdeéğ"
_LETTER_S = 0.12


@dataclass(frozen=True)
class TinySpeech:
    """Where the files lie."""

    root: Path

    @property
    def model(self) -> Path:
        """Pre-trained: encoder and quantizer, no head for letters; told of padding."""
        return self.root / "model"

    @property
    def group_norm(self) -> Path:
        """The same of the kind of base models: group norm over time, not told of padding."""
        return self.root / "group-norm"

    def tsv(self, language: str = "es", split: str = "train") -> Path:
        """Common Voice manifest of a split."""
        return self.root / language / f"{split}.tsv"


def write_speech(root: Path, num_train: int = 60, num_test: int = 20) -> TinySpeech:
    """Make everything below ``root``; equal bytes each time."""
    speech = TinySpeech(root)
    for place, norm in ((speech.model, "layer"), (speech.group_norm, "group")):
        write_model(place, norm)
    for number, language in enumerate(("es", "tr")):
        rng = np.random.Generator(np.random.PCG64(number))
        for split, count in (("train", num_train), ("test", num_test)):
            write_split(speech.tsv(language, split), [sentence(rng, number) for _ in range(count)], rng)
    return speech


def write_model(place: Path, norm: str = "layer", seed: int = 0, kind: str = "Wav2Vec2") -> None:
    """Random weights, as ``save_pretrained`` leaves them, and what reads the samples."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=20,
        conv_dim=(8, 8, 8),
        conv_kernel=(20, 8, 4),
        conv_stride=(16, 5, 4),  # a frame is 20 ms
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
        num_codevectors_per_group=4,
        codevector_dim=8,
        proj_codevector_dim=8,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        final_dropout=0.0,
        mask_time_prob=0.5,
    )
    head = "ForPreTraining" if kind == "Wav2Vec2" else "Model"
    getattr(transformers, f"{kind}{head}")(config).save_pretrained(place)
    Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer", do_normalize=True).save_pretrained(place)
    assert "conv_stride" in json.loads((place / "config.json").read_text(encoding="utf-8"))


def sentence(rng: np.random.Generator, language: int) -> str:
    """Two or three words; the second language has letters that the first lacks."""
    letters = LETTERS[: 5 + 2 * language]
    words = ["".join(rng.choice(list(letters), rng.integers(1, 4))) for _ in range(rng.integers(2, 4))]
    return " ".join(words)


def tones(text: str, rng: np.random.Generator, rate: int = RATE) -> np.ndarray:
    """One tone per letter, with a little noise; float32 in [-1, 1]."""
    each = np.arange(int(_LETTER_S * rate)) / rate
    parts = [
        0.5 * np.sin(2 * np.pi * (300 + 250 * LETTERS.index(letter)) * each) if letter in LETTERS else 0 * each
        for letter in text
    ]
    samples = np.concatenate(parts) + 0.01 * rng.standard_normal(len(each) * len(text))
    return samples.astype(np.float32)


def write_split(tsv: Path, sentences: list[str], rng: np.random.Generator) -> None:
    """A manifest and its clips."""
    clips = tsv.parent / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    lines = ["client_id\tpath\tsentence"]
    for number, text in enumerate(sentences):
        name = f"{tsv.stem}-{number}.wav"
        soundfile.write(clips / name, tones(text, rng), RATE, subtype="PCM_16")
        lines.append(f"speaker\t{name}\t{text}")
    tsv.write_text("\n".join(lines) + "\n", encoding="utf-8")
