"""What users fetch: a Hugging Face directory with exact zeros, masks, a card and a manifest, checked as written."""

import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from prunus.configs.values.wording import listed
from prunus.jobs.data.pipeline.batches import Processor
from prunus.jobs.engine.engine import Engine
from prunus.jobs.errors import JobError
from prunus.jobs.results.model_card import sparsity_table
from prunus.jobs.sparsity.arithmetic import Masks

SPARSITY_FILE = "sparsity.json"


def write_model(engine: Engine, processor: Processor, masks: Masks, directory: Path, card: str) -> dict[str, float]:
    """Write the student as ``directory`` (collective; rank 0 writes).

    Weights are the fp32 masters with the masks in them; the tensors in the written file are counted against the masks.

    Returns:
        ``sparsity/prunable`` and ``sparsity/model`` of the file, on rank 0; {} elsewhere.

    Raises:
        JobError: The file differs from the masks; it is not to be published.
    """
    student = engine.objective.student
    state = {name: weight for name, weight in engine.full_weights() if weight is not None}
    if not engine.ranks.is_main:
        return {}
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for name, mask in masks.items():
        state[name].masked_fill_(~mask.cpu(), 0.0)  # a product would leave negative zeros, whose signs do not compress
    for name, buffer in student.named_buffers():
        if name in student.state_dict():
            state[name] = buffer.detach().cpu()
    _tie(student, state)
    student.config.dtype = torch.float32
    student.save_pretrained(directory, state_dict=state)
    processor.save_pretrained(directory)
    facts = check_file(directory, masks)
    (directory / SPARSITY_FILE).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    prunable = _share(facts["prunable"].values())  # type: ignore[attr-defined]
    whole = _share(facts["all"].values())  # type: ignore[attr-defined]
    (directory / "README.md").write_text(card + sparsity_table(facts, prunable, whole), encoding="utf-8")
    return {"sparsity/prunable": prunable, "sparsity/model": whole}


def _tie(student: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Give every name of a shared parameter the same tensor (``named_parameters`` lists it once)."""
    first: dict[int, str] = {}
    for name, parameter in student.named_parameters(remove_duplicate=False):
        owner = first.setdefault(id(parameter), name)
        if owner in state:
            state[name] = state[owner]


def check_file(directory: Path, masks: Masks) -> dict[str, object]:
    """Count zeros in the written safetensors and compare with the masks.

    Returns:
        Contents of ``sparsity.json``: shape and zeros of every prunable tensor and of all tensors.

    Raises:
        JobError: A removed weight is not zero in the file, or a prunable tensor is missing from it.
    """
    prunable: dict[str, dict[str, object]] = {}
    everything: dict[str, dict[str, object]] = {}
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no iterator there
                tensor = opened.get_tensor(name)
                entry = {"shape": list(tensor.shape), "zeros": int((tensor == 0).sum())}
                everything[name] = entry
                if name in masks:
                    left = int(torch.count_nonzero(tensor[~masks[name].cpu()]))
                    if left:
                        raise JobError(f"{left} removed weights of {name} are not zero in {file.name}: not published")
                    prunable[name] = {**entry, "removed": int((~masks[name]).sum())}
    missing = sorted(masks.keys() - prunable.keys())
    if missing:
        raise JobError(f"the written model has no tensor {listed(missing)}: not published")
    return {"schema_version": 1, "prunable": prunable, "all": everything}


def _share(entries: object) -> float:
    zeros = total = 0
    for entry in entries:  # type: ignore[attr-defined]
        zeros += entry["zeros"]
        total += int(torch.Size(entry["shape"]).numel())
    return zeros / total if total else 0.0
