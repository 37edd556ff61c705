"""Real-time factor of evaluation: CPU seconds per second of audio, for the model alone and for all of ``evaluate``.

Clips of one length, random weights (the arithmetic does not depend on them), greedy decoding, error rates by jiwer. A
sparse model takes as long as a dense one: its zeros are multiplied like other numbers.
Run: ``python -m benchmarks.speech_evaluation [--clips N] [--seconds S] [--turns N] [--base]``.
"""

import argparse
from types import SimpleNamespace
from typing import Any

import torch
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from benchmarks.timing import machine, take_turns
from prunus.configs.tasks.ctc import CTC
from prunus.jobs.examples.speech_model import small_config
from prunus.jobs.objectives.base import Weights
from prunus.jobs.objectives.ctc import CTCObjective
from prunus.jobs.ranks import Ranks
from prunus.jobs.tasks.ctc import CTCTask

RATE = 16_000
UNITS = ("<pad>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz")
ALONE = Weights(task=1.0, teacher=0.0, temperature=1.0, predicted_only=False, chunk_rows=8)


def main() -> None:
    """Print one Markdown row per model and sparsity."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--base", action="store_true", help="wav2vec 2.0 base too: 94M weights")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine()}\n\n{given.clips} clips of {given.seconds:g} s, batches of 4\n")
    print("| model | weights, M | zeros in the encoder | model alone, RTF | evaluation, RTF |")
    print("|---|---|---|---|---|")
    configs = {"small (hidden 128, 4 layers)": small_config(dropout=0.0)}
    if given.base:
        configs["base (hidden 768, 12 layers)"] = Wav2Vec2Config()
    for name, config in configs.items():
        for sparsity in (0.0, 0.9):
            _row(name, config, sparsity, given)


def _row(name: str, config: Wav2Vec2Config, sparsity: float, given: Any) -> None:
    torch.manual_seed(0)
    config.vocab_size, config.pad_token_id = len(UNITS), 0
    student = Wav2Vec2ForCTC(config).eval()
    with torch.no_grad():
        for module in student.wav2vec2.encoder.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.mul_(torch.rand_like(module.weight) >= sparsity)
    objective = CTCObjective(student, ALONE, False, "units", 0).eval()
    tokenizer = SimpleNamespace(pad_token_id=0, unk_token="<unk>", word_delimiter_token="|")
    data: Any = SimpleNamespace(
        labels=UNITS, eval_groups=(), processor=SimpleNamespace(tokenizer=tokenizer, sampling_rate=RATE)
    )
    task = CTCTask(CTC.model_validate({"data": {"train": {"files": ["x.tsv"]}}}), data)
    engine: Any = SimpleNamespace(forward=objective)
    batches = [_batch(int(given.seconds * RATE)) for _ in range(given.clips // 4)]
    with torch.no_grad():
        times = take_turns(
            {
                "model": lambda: [student(batch["input_values"]).logits for batch in batches],
                "evaluation": lambda: task.evaluate(engine, batches, Ranks(0, 1, torch.device("cpu"))),  # type: ignore[arg-type]
            },
            given.turns,
        )
    audio_s = given.seconds * 4 * len(batches)
    millions = sum(p.numel() for p in student.parameters()) / 1e6
    alone, whole = (min(times[case].cpu_s) / audio_s for case in ("model", "evaluation"))
    print(f"| {name} | {millions:.1f} | {sparsity:.0%} | {alone:.4f} | {whole:.4f} |", flush=True)


def _batch(num_samples: int) -> dict[str, torch.Tensor]:
    return {
        "input_values": torch.randn(4, num_samples),
        "attention_mask": torch.ones(4, num_samples, dtype=torch.long),
        "labels": torch.randint(2, len(UNITS), (4, num_samples // (RATE // 12))),
        "weight": torch.ones(4),
        "group": torch.zeros(4, dtype=torch.long),
    }


if __name__ == "__main__":
    main()
