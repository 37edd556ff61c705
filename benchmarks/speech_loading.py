"""Speech from files to batches: ours against the way of transformers' examples (``datasets.map``), hours per second.

Generated clips of 2 to 8 s, mono, 48 kHz mp3 like those of Common Voice, to be heard at 16 kHz. Three comparisons:

- preparation: decode, resample, scale, write to disk. ``map``: soundfile, torchaudio's resampling and the feature
  extractor, one process (its children's CPU time would not be counted);
- batches of prepared clips: ``map``'s rows padded by the feature extractor, as lists (the examples) or as NumPy;
- streaming: batches straight from the files, decoded where they are used.

Ours also probes and hashes the clips, checks transcripts, and draws SpecAugment's masks. One torch thread.
Run: ``python -m benchmarks.speech_loading [--clips N] [--turns N]``.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import soundfile
import torch
from torchaudio.functional import resample
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor

from benchmarks.timing import Samples, machine, take_turns
from prunus.configs import JobSpec
from prunus.jobs.data.build import build_data
from prunus.jobs.data.pipeline.batches import TaskData
from prunus.jobs.data.speech.clips import clip_cache, probes, subset
from prunus.jobs.data.speech.speech_input import SpeechInput
from prunus.jobs.ranks import Ranks

RATE, FILE_RATE, BATCH_SIZE = 16_000, 48_000, 16


def main() -> None:
    """Print one Markdown table per comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=160)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="prunus-bench-") as folder:
        hours = _Bench(Path(folder), arguments.clips).run(arguments.turns)
    print(f"\n{arguments.clips} clips, {hours * 60:.1f} minutes of audio; {len(os.sched_getaffinity(0))} cores usable.")


class _Bench:
    """The corpus and the cases."""

    def __init__(self, folder: Path, num_clips: int) -> None:
        self._folder = folder
        self._extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
        seconds = 2 + 6 * np.random.default_rng(0).random(num_clips)
        self._hours = float(seconds.sum()) / 3600
        (folder / "clips").mkdir()
        lines = ["path\tsentence"]
        for number, length in enumerate(seconds):
            soundfile.write(folder / "clips" / f"{number}.mp3", _voice(length, number), FILE_RATE)
            lines.append(f"{number}.mp3\tseis palabras por cada uno de ellos")
        (folder / "train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._rows = datasets.Dataset.from_dict({"path": [str(folder / f"clips/{n}.mp3") for n in range(num_clips)]})
        self._turn = 0

    def run(self, turns: int) -> float:
        """Measure all; returns the hours of audio."""
        self._table(
            "Preparation",
            {
                "`datasets.map`, one process": self._map,
                "ours, one thread": lambda: self._with_workers(1, self._prepare),
                "ours, a thread per core": self._prepare,
            },
            turns,
        )
        mapped = self._map()
        numpy_rows = mapped.with_format("numpy", columns=["input_values"])
        cached, done = self._prepare(fresh=False), [0]
        self._table(
            "Batches of prepared clips",
            {
                "rows of `map` as lists, padded": lambda: self._collate(mapped),
                "rows of `map` as NumPy, padded": lambda: self._collate(numpy_rows),
                "ours": lambda: self._steps(cached, done),
            },
            turns,
        )
        lazy = self._rows.with_transform(self._decode_rows)
        streamed, also_done = self._prepare(fresh=False, streaming=True), [0]
        self._table(
            "Streaming from files",
            {
                "`with_transform`, padded": lambda: self._collate(lazy),
                "ours, a thread per core": lambda: self._steps(streamed, also_done),
            },
            turns,
        )
        samples = max(file.stat().st_size for file in (self._folder / "cache").rglob("samples.bin"))
        arrow = max(file.stat().st_size for file in self._folder.glob("map-*.arrow"))
        print(f"\nPrepared clips on disk: {samples / 1e6:.0f} MB, {arrow / 1e6:.0f} MB of `map`.")
        return self._hours

    def _table(self, title: str, cases: dict[str, Callable[[], object]], turns: int) -> None:
        samples = take_turns(cases, turns)
        base = next(iter(samples.values()))
        print(f"\n{title}\n\n| case | hours of audio per s | per CPU s | to the first, wall | CPU |")
        print("|---|---|---|---|---|")
        for name, case in samples.items():
            wall, cpu = self._per_second(case)
            wall_0, cpu_0 = self._per_second(base)
            print(f"| {name} | {wall:.3f} | {cpu:.3f} | {wall / wall_0:.2f} | {cpu / cpu_0:.2f} |", flush=True)

    def _per_second(self, case: Samples) -> tuple[float, float]:
        return self._hours / case.median_s, self._hours / sorted(case.cpu_s)[len(case.cpu_s) // 2]

    def _prepare(self, *, fresh: bool = True, streaming: bool = False) -> TaskData:
        if fresh:
            shutil.rmtree(self._folder / "cache", ignore_errors=True)
        data = {"train": {"files": [str(self._folder / "train.tsv")]}, "streaming": streaming}
        spec = JobSpec.model_validate(
            {
                "name": "bench",
                "task": {"name": "ctc", "data": data},
                "model": {"from": "none"},
                "train": {"num_steps": 1, "lr": {"peak": 1}, "batch_size": BATCH_SIZE},
            }
        )
        inputs = SpeechInput(self._extractor, Wav2Vec2Config(), ())
        return build_data(spec, inputs, self._folder / "cache", Ranks(0, 1, torch.device("cpu")))

    def _with_workers(self, number: int, case: Callable[[], object]) -> None:
        """Run a case with so many threads."""
        modules: tuple[Any, ...] = (probes, subset, clip_cache)
        original = probes.num_workers
        for module in modules:
            module.num_workers = lambda: number
        try:
            case()
        finally:
            for module in modules:
                module.num_workers = original

    def _steps(self, data: TaskData, begin: list[int]) -> None:
        """Read one epoch, from where the last call ended: the next step may be under way already."""
        end = begin[0] + len(self._rows) // BATCH_SIZE
        for step in range(begin[0], end):
            for batch in data.train.at(step):
                assert batch["input_values"].dtype == torch.float32
        begin[0] = end

    def _map(self) -> Any:
        for file in self._folder.glob("map-*.arrow"):
            file.unlink()
        self._turn += 1
        file = self._folder / f"map-{self._turn}.arrow"
        return self._rows.map(self._decode_row, cache_file_name=str(file), load_from_cache_file=False)

    def _decode_row(self, row: dict[str, Any]) -> dict[str, Any]:
        samples_S, rate = soundfile.read(row["path"], dtype="float32")
        heard_S = resample(torch.from_numpy(samples_S), rate, RATE).numpy()
        return {"input_values": self._extractor(heard_S, sampling_rate=RATE).input_values[0]}

    def _decode_rows(self, rows: dict[str, list[Any]]) -> dict[str, Any]:
        return {"input_values": [self._decode_row({"path": path})["input_values"] for path in rows["path"]]}

    def _collate(self, rows: Any) -> None:
        order = np.random.default_rng(0).permutation(len(rows))
        for start in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
            features = [{"input_values": rows[int(i)]["input_values"]} for i in order[start : start + BATCH_SIZE]]
            batch = self._extractor.pad(features, padding=True, return_tensors="pt")
            assert batch["input_values"].shape[0] == BATCH_SIZE


def _voice(seconds: float, number: int) -> np.ndarray:
    """Harmonics with a syllable's rise and fall, and some noise."""
    time_S = np.arange(round(seconds * FILE_RATE)) / FILE_RATE
    wave_S = sum(np.sin(2 * np.pi * (90 + number % 80) * k * time_S) / k for k in range(1, 12))
    noise_S = np.random.default_rng(number).normal(size=len(time_S))
    return 0.1 * wave_S * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time_S)) + 0.005 * noise_S


if __name__ == "__main__":
    main()
