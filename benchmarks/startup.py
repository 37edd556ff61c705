"""From ``prunus submit`` to the first step and to the end, of a job that does next to nothing.

Starts a home of its own (``--home``), submits the same tiny job twice (the first finds nothing warm), looks at it ten
times a second, prints when each phase was first seen, and ends everything it started. Run: ``python -m
benchmarks.startup --home DIR``.
"""

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

from benchmarks.timing import machine
from prunus.service.client import Client
from prunus.service.local import up as embedded
from prunus.service.wire import JobView

NUM_STEPS = 20
GIVE_UP_S = 280.0


def main() -> None:
    """Print one Markdown table: seconds after the submit command began."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="directory for an embedded default of its own")
    home: Path = parser.parse_args().home.resolve()
    recipe = make_job(home / "startup-job")
    began = time.monotonic()
    try:
        state = embedded.up(home, None, lambda line: print(line, file=sys.stderr))
        print(f"{machine()}\n\n`prunus up`: {time.monotonic() - began:.1f} s\n")
        with Client(state.server_url) as client:
            seen = {name: _one_job(client, state.server_url, recipe, name) for name in ("first", "second")}
    finally:
        embedded.down(home)
    print("| first seen | first job, s | second job, s |\n|---|---|---|")
    for event in dict.fromkeys(event for of_job in seen.values() for event in of_job):
        cells = [f"{of_job[event]:.1f}" if event in of_job else "" for of_job in seen.values()]
        print(f"| {event} | {' | '.join(cells)} |")


def make_job(directory: Path) -> Path:
    """Write a tiny model, text and recipe (masked_lm, ZeRO-2, one rank); returns the recipe's path."""
    directory.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (directory / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(directory / "vocab.txt")).save_pretrained(directory / "model")
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertForMaskedLM(BertConfig(vocab_size=len(words), **size)).save_pretrained(directory / "model")
    draw = random.Random(0)
    lines = ("".join(draw.choices(letters + "  ", k=80)) for _ in range(400))
    (directory / "text.txt").write_text("\n".join(lines))
    text = {"files": [str(directory / "text.txt")]}
    job = {
        "name": "startup",
        "task": {"name": "masked_lm", "data": {"train": text, "eval": text, "sequence_length": 32}},
        "model": {"from": str(directory / "model")},
        "method": {"name": "gradual_magnitude", "final_sparsity": 0.5, "update_every": 5},
        "train": {"num_steps": NUM_STEPS, "batch_size": 8, "lr": {"peak": 1.0e-3}, "log_every": 5},
        "engine": {"strategy": "zero2"},
    }
    recipe = directory / "job.yaml"
    recipe.write_text(yaml.safe_dump(job))
    return recipe


def _one_job(client: Client, url: str, recipe: Path, name: str) -> dict[str, float]:
    began = time.time()
    command = [sys.executable, "-m", "prunus.service.cli", "submit", str(recipe)]
    command += ["--name", f"startup-{name}", "--url", url]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seen = {"submit has returned": time.time() - began}
    while time.time() - began < GIVE_UP_S:
        job = client.job(f"startup-{name}")
        for event, moment in _events(job).items():
            seen.setdefault(event, moment - began)
        if job.state.is_terminal:
            seen[f"state {job.state.value}"] = (job.finished_at or time.time()) - began
            return dict(sorted(seen.items(), key=lambda pair: pair[1]))
        time.sleep(0.1)
    raise RuntimeError(f"the job has not ended in {GIVE_UP_S:.0f} s; it is {job.state.value}: {job.why}")


def _events(job: JobView) -> dict[str, float]:
    """What this view shows, with the moment at which it was so (the rank's own clock where there is one)."""
    events = {} if job.state.is_terminal else {f"state {job.state.value}": time.time()}
    if job.progress is not None:
        events[f"rank 0: {job.progress.phase}"] = job.progress.time
        if job.progress.step:
            events["rank 0: steps are done"] = job.progress.time
    return events


if __name__ == "__main__":
    main()
