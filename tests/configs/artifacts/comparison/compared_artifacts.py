"""Artifacts of jobs, small enough to be compared by hand; what the tests of comparing share."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.configs import JobRecord
from prunus.configs.artifacts import mask_file
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.comparison.candidates import Candidate
from prunus.configs.artifacts.layout import JOB_RECORD
from prunus.configs.artifacts.manifest import MANIFEST, Manifest, build_entries
from prunus.configs.artifacts.mask_file import PackedMask

BITS = {
    # 4 + 2 positions; x keeps 3, y keeps 3, both keep 2
    "x": {"a": [1, 1, 0, 0], "b": [1, 0]},
    "y": {"a": [1, 0, 1, 0], "b": [1, 0]},
    # of other weights
    "z": {"a": [1, 1, 0, 0]},
}


def bits(name: str) -> dict[str, NDArray[np.bool_]]:
    """One of ``BITS`` as a mask: a matrix and a bias."""
    found = {key: np.array(values, dtype=bool) for key, values in BITS[name].items()}
    return {key: mask.reshape(2, 2) if mask.size == 4 else mask for key, mask in found.items()}


def record(name: str, method: str = "gradual_magnitude", **more: Any) -> JobRecord:
    """``job.json``; ``more`` are metrics by their last part, ``labels``, ``campaign``."""
    labels, campaign = more.pop("labels", {}), more.pop("campaign", None)
    spec = {"name": name, "labels": labels, "task": {"name": "ctc"}, "method": {"name": method, "final_sparsity": 0.5}}
    metrics = {f"eval/{key}": value for key, value in more.items()} | {"sparsity/prunable": 0.0, "loss/task": 9.0}
    return JobRecord(job_id=f"j-{name}", job_name=name, campaign_name=campaign, spec=spec, metrics=metrics)


def candidate(name: str, mask: str | None = None, **more: Any) -> Candidate:
    """What takes part in a comparison."""
    packed = PackedMask.of(bits(mask)) if mask else None
    return Candidate(name, f"job:{name}", record(name, **more), packed)


def write_artifact(root: Path, name: str, mask: str | None = None, *, with_manifest: bool = True, **more: Any) -> Path:
    """The artifacts of a job on disk."""
    root.mkdir(parents=True, exist_ok=True)
    write_atomic(root / JOB_RECORD, record(name, **more).model_dump_json())
    if mask:
        folder = root / mask_file.FOLDER / "step-5"
        mask_file.save(PackedMask.of(bits(mask)), folder, mask_file.Facts("gradual_magnitude", 5))
    if with_manifest:
        manifest = Manifest(job_id=f"j-{name}", job_name=name, attempt_id=f"j-{name}-a1", files=build_entries(root))
        write_atomic(root / MANIFEST, manifest.model_dump_json())
    return root
