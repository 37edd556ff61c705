"""Jobs with one mistake each that only the job itself can find, and the words that its message must have."""

import shutil
from pathlib import Path
from typing import Any

from tests.tiny_inputs import TinyInputs

EXPECTED = {
    "missing-file": ["nowhere.txt"],
    "empty": ["empty.txt"],
    "column": ["nope", "label", "text"],
    "tokenizer": ["another tokenizer", "stranger"],
    "pattern": ["no.such.weight", "matches no weight", "bert.encoder.layer.N.attention.self.query.weight"],
    "corrupt": ["corrupt", "damaged"],
    "tampered": ["tampered", "differs from its manifest"],
    "labels": ["classes"],
}


def bad_jobs(tiny: TinyInputs, root: Path) -> list[dict[str, Any]]:
    """One job for each mistake. The file of ``missing-file`` is there until somebody removes it."""
    (root / "empty.txt").write_text("\n\n")
    (root / "nowhere.txt").write_text("it is there at submit, and gone when the job looks\n")
    corrupt, tampered = root / "corrupt", root / "tampered"
    shutil.copytree(tiny.model, corrupt)
    weights = (corrupt / "model.safetensors").read_bytes()
    (corrupt / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    _artifact(tiny, tampered)
    text = {"files": [str(tiny.text)]}
    english = {"name": "masked_lm", "data": {"train": text, "sequence_length": 16}}
    rows = {"files": [str(tiny.labelled)]}
    labelled: dict[str, Any] = {"name": "classification", "data": {"train": rows, "eval": rows, "sequence_length": 16}}
    train = {"num_steps": 2, "batch_size": 4, "lr": {"peak": 1e-3}}
    pruned = {"name": "gradual_magnitude", "final_sparsity": 0.5}
    good = {"task": english, "model": {"from": str(tiny.model)}, "train": train}

    def lines_from(path: str) -> dict[str, Any]:
        return {**english, "data": {"train": {"files": [path]}, "sequence_length": 16}}

    return [
        {"name": "missing-file", **good, "task": lines_from(str(root / "nowhere.txt"))},
        {"name": "empty", **good, "task": lines_from(str(root / "empty.txt"))},
        {"name": "column", **good, "task": {**labelled, "data": {**labelled["data"], "label_column": "nope"}}},
        {"name": "tokenizer", **good, "distillation": {"teacher": str(tiny.stranger)}},
        {"name": "pattern", **good, "method": {**pruned, "prunable": {"include": ["no.such.weight"]}}},
        {"name": "corrupt", **good, "model": {"from": str(corrupt)}},
        {"name": "tampered", **good, "model": {"from": str(tampered)}},
        {
            "name": "labels",
            **good,
            "task": {**labelled, "labels": ["short", "long"]},
            "distillation": {"teacher": str(tiny.classifier)},
        },
    ]


def _artifact(tiny: TinyInputs, root: Path) -> None:
    """A finished artifact, one bit of which was changed after its manifest was written."""
    from prunus.configs.artifacts.manifest import MANIFEST, Manifest, build_entries

    shutil.copytree(tiny.model, root / "model")
    manifest = Manifest(job_id="j", job_name="j", attempt_id="j-a1", files=build_entries(root))
    (root / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
    weights = bytearray((root / "model" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (root / "model" / "model.safetensors").write_bytes(weights)
