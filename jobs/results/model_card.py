"""The model card that lies beside the weights, with the table of sparsity."""

import torch

from prunus.configs import JobSpec, Launch


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


def sparsity_table(facts: dict[str, object], prunable: float, whole: float) -> str:
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
