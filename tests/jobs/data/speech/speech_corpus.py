"""Small corpora of tones, written as the layouts of real ones; and what a tiny wav2vec 2.0 asks of its data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import soundfile
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor

from prunus.configs import JobSpec
from prunus.jobs.data.speech.speech_input import SpeechInput

RATE = 16000


def tone(seconds: float, rate: int = RATE, pitch_hz: float = 440.0, channels: int = 1) -> np.ndarray:
    """Return a sine of amplitude 0.5, (S,) or (S, channels)."""
    wave_S = 0.5 * np.sin(2 * np.pi * pitch_hz * np.arange(round(seconds * rate)) / rate)
    return wave_S if channels == 1 else np.repeat(wave_S[:, None], channels, axis=1)


def write_clip(path: Path, seconds: float, rate: int = RATE, pitch_hz: float = 440.0, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(seconds, rate, pitch_hz, channels), rate)
    return path


def common_voice(
    folder: Path, rows: Sequence[tuple[str, float, str]], name: str = "train.tsv", rate: int = RATE
) -> Path:
    """Write (file name, seconds, sentence) of each clip; each has a pitch of its own."""
    lines = ["client_id\tpath\tsentence\tup_votes"]
    for number, (clip, seconds, sentence) in enumerate(rows):
        if seconds > 0:
            write_clip(folder / "clips" / clip, seconds, rate, pitch_hz=200 + 7 * number)
        lines.append(f"c{number}\t{clip}\t{sentence}\t2")
    table = folder / name
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def lengths_corpus(folder: Path, num_clips: int = 23, name: str = "train.tsv") -> Path:
    """Clips of 0.3 to 1.2 s, all of different lengths, each with two words of its own."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    rows = []
    for i in range(num_clips):
        seconds = 0.3 + 0.9 * ((i * 5) % num_clips) / num_clips
        rows.append((f"{name[:2]}{i:03}.wav", seconds, f"{letters[i % 26]}a {letters[i // 26]}b"))
    return common_voice(folder, rows, name)


def speech_input(
    *, sees_padding: bool = True, do_normalize: bool = True, tokens: tuple[str, ...] = (), **config: Any
) -> SpeechInput:
    """Return the inputs of wav2vec 2.0 with its usual kernels and strides, 128 channels wide."""
    config.setdefault("feat_extract_norm", "layer" if sees_padding else "group")
    extractor = Wav2Vec2FeatureExtractor(do_normalize=do_normalize, return_attention_mask=sees_padding)
    return SpeechInput(extractor, Wav2Vec2Config(hidden_size=128, **config), tokens)


def ctc_spec(task: dict[str, Any], world_size: int = 1, **train: Any) -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "j",
            "task": task,
            "model": {"from": "some/model"},
            "train": {"num_steps": 5, "lr": {"peak": 1e-3}, "seed": 7, **train},
            "resources": {"num_ranks": world_size},
        }
    )


def ctc_task(train: Any, eval_files: Any = None, **options: Any) -> dict[str, Any]:
    """Return a task; ``data_*`` options go to its data, the others to itself."""

    def source(given: Any) -> Any:
        return {"files": [str(given)]} if isinstance(given, Path) else given

    data = {key[5:]: options.pop(key) for key in list(options) if key.startswith("data_")}
    data["train"] = source(train)
    if eval_files is not None:
        data["eval"] = source(eval_files)
    return {"name": "ctc", "data": data, **options}


def hub_data(audio: Sequence[bytes], texts: Sequence[str | None]) -> datasets.Dataset:
    """Return a data set with an audio column, made without torchcodec."""
    held = datasets.Dataset.from_dict({"audio": [{"bytes": a, "path": None} for a in audio], "text": list(texts)})
    return held.cast_column("audio", datasets.Audio())
