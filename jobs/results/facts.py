"""Parameters of a job's MLflow run: its spec, flat, its lineage and its environment."""

import contextlib
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
import transformers

from prunus.configs import AnySpec, __version__
from prunus.jobs.training.training import Training


def run_facts(run: Training) -> dict[str, Any]:
    """Parameters of the MLflow run: the resolved spec, flat, and what surrounds it."""
    facts = spec_facts(run.spec, run.lineage)
    facts |= {"num_steps": run.num_steps, "data.digest": run.data.digest, "prunable_weights": 0}
    if run.weights is not None:
        facts["prunable_weights"] = run.weights.num_weights
    return facts | {"env.transformers": transformers.__version__, "env.device": str(run.ranks.device)}


def spec_facts(spec: AnySpec, lineage: dict[str, str]) -> dict[str, Any]:
    """The part of the parameters that every kind of job has."""
    facts: dict[str, Any] = {}

    def flatten(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                flatten(item, f"{path}.{key}" if path else str(key))
        else:
            facts[path] = json.dumps(value) if isinstance(value, list) else value

    flatten(spec.model_dump(mode="json", by_alias=True), "")
    facts |= {f"lineage.{role}": text for role, text in lineage.items()}
    facts |= {"env.prunus": __version__, "env.python": platform.python_version(), "env.torch": torch.__version__}
    return facts | {"env.git": _git_revision()}


def _git_revision() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "none"  # noqa: S603
    return "none"
