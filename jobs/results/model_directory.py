"""What users fetch: a Hugging Face directory with exact zeros, masks, a card and a manifest, checked as written."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from prunus.configs import JobRecord, JobSpec, Launch
from prunus.configs.artifacts.layout import JOB_RECORD, MANIFEST, Manifest, build_entries, sha256_file, write_atomic
from prunus.jobs.data.pipeline.batches import Processor
from prunus.jobs.engine.engine import Engine
from prunus.jobs.errors import JobError
from prunus.jobs.sparsity import masks as masks_module
from prunus.jobs.sparsity.masks import Masks

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
    (directory / "README.md").write_text(card + _sparsity_table(facts, prunable, whole), encoding="utf-8")
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
        raise JobError(f"the written model has no tensor {missing[0]} (and {len(missing) - 1} more): not published")
    return {"schema_version": 1, "prunable": prunable, "all": everything}


def _share(entries: object) -> float:
    zeros = total = 0
    for entry in entries:  # type: ignore[attr-defined]
        zeros += entry["zeros"]
        total += int(torch.Size(entry["shape"]).numel())
    return zeros / total if total else 0.0


def write_mask(masks: Masks, artifacts: Path, facts: masks_module.Facts) -> None:
    """Write ``masks/step-N/`` of the artifacts."""
    if masks:
        masks_module.save(masks, artifacts / "masks" / f"step-{facts.step}", facts)


def write_record(artifacts: Path, launch: Launch, num_steps: int, metrics: dict[str, float]) -> None:
    """Write ``job.json``: the resolved spec and the final metrics, for who compares artifacts without a server."""
    record = JobRecord(
        job_id=launch.job_id,
        job_name=launch.job_name,
        campaign_name=launch.campaign_name,
        spec=launch.spec.model_dump(mode="json", by_alias=True),
        num_steps=num_steps,
        metrics=metrics,
    )
    write_atomic(artifacts / JOB_RECORD, record.model_dump_json(indent=1))


def write_manifest(artifacts: Path, launch: Launch, lineage: dict[str, str]) -> str:
    """Digest everything below ``artifacts`` and write the manifest, last; returns the manifest's own SHA-256."""
    manifest = Manifest(
        job_id=launch.job_id,
        job_name=launch.job_name,
        attempt_id=launch.attempt_id,
        files=build_entries(artifacts),
        parents=lineage,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_atomic(artifacts / MANIFEST, manifest.model_dump_json(indent=1))
    return sha256_file(artifacts / MANIFEST)


def model_card(launch: Launch, lineage: dict[str, str], metrics: dict[str, float], base: str) -> str:
    """The model card's text above the sparsity table (Markdown with the hub's front matter)."""
    spec = launch.spec
    assert isinstance(spec, JobSpec), "a comparison has no model"
    parents = "\n".join(f"- {role}: `{text}`" for role, text in lineage.items())
    results = "\n".join(f"| {name} | {value:.4f} |" for name, value in sorted(metrics.items()))
    return (
        f"---\nlibrary_name: transformers\ntags: [prunus, {spec.method.name}, sparse]\n---\n\n"
        f"# {launch.job_name}\n\n`{spec.task.name}` x `{spec.method.name}`, started from `{base}`, made by prunus job "
        f"`{launch.job_id}` (attempt {launch.attempt}).\n\n"
        "Plain safetensors with exact zeros: `from_pretrained` needs nothing of prunus. Unstructured zeros make the "
        "file smaller when it is compressed and the model no faster on ordinary CPUs and GPUs.\n\n"
        f"## Made from\n\n{parents}\n\n## Held-out results\n\n| metric | value |\n|---|---|\n{results}\n"
    )


def _sparsity_table(facts: dict[str, object], prunable: float, whole: float) -> str:
    entries: dict[str, dict[str, object]] = facts["prunable"]  # type: ignore[assignment]
    rows = "\n".join(
        f"| {name} | {e['shape']} | {e['zeros']} | {e['zeros'] / torch.Size(e['shape']).numel():.4f} |"  # type: ignore[operator,arg-type]
        for name, e in entries.items()
    )
    return (
        "\n## Sparsity (share of elements that are zero)\n\n"
        f"Prunable weights ({len(entries)} tensors): {prunable:.4f}. "
        f"Whole model: {whole:.4f}.\n\n| weight | shape | zeros | sparsity |\n|---|---|---|---|\n{rows}\n"
    )
