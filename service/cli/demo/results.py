"""What the demo fetches, and the tables that it ends with."""

from pathlib import Path

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from prunus.configs.artifacts.compact.layout import packed_path
from prunus.configs.artifacts.comparison.result import COMPARISON_FILE, Comparison
from prunus.configs.artifacts.inspection import inspect
from prunus.service.cli.comparison_tables import page
from prunus.service.cli.shown.words import duration, elapsed, number, size
from prunus.service.cli.terminal import note
from prunus.service.client import Client
from prunus.service.client.fetch import fetch
from prunus.service.wire import ArtifactView, JobView

OUT = Path("demo-out")

FETCHED = ("sparse", "dense-task", "sparse-task")


def prune_ofa_page(client: Client, jobs: list[JobView]) -> RenderableType:
    """Fetch the language models; sizes, zeros and accuracy."""
    by_name = {job.name: job for job in jobs}
    for name in FETCHED:
        note(fetch(client, f"job:{by_name[name].id}", OUT / name).summary)
    sizes = {job.name: weight_bytes(client.artifacts(f"job:{job.id}")) for job in jobs}
    return results_table(jobs, OUT, sizes)


def parp_page(client: Client, jobs: list[JobView]) -> RenderableType:
    """Fetch the languages' models and their comparison; error rates, and how the masks agree."""
    for job in jobs:
        if job.name.startswith("parp-") or job.name == "compare":
            note(fetch(client, f"job:{job.id}", OUT / job.name).summary)
    text = (OUT / "compare" / COMPARISON_FILE).read_bytes()
    return page(Comparison.model_validate_json(text), "PARP: one sparse model per language")


def weight_bytes(artifact: ArtifactView) -> tuple[int, int | None]:
    """Bytes of an artifact's weights, plain and in the packed compact form; None for a dense model, which has none."""
    sizes = {file.path: file.size for file in artifact.files}
    plain = {path: packed for path in sizes if (packed := packed_path(path))}
    compact = sum(sizes.get(packed, 0) for packed in plain.values())
    return sum(sizes[path] for path in plain), compact or None


def results_table(jobs: list[JobView], out: Path, sizes: dict[str, tuple[int, int | None]]) -> Table:
    """Sparsity, accuracy, bytes of the weights and time of each job; zeros are counted in fetched files."""
    table = Table(title="Prune OFA: pruned once at pre-training, then fine-tuned", title_justify="left", box=None)
    for header in ("JOB", "PRUNABLE ZEROS", "WHOLE MODEL", "EVAL LOSS", "ACCURACY", "PLAIN", "COMPACT", "TIME"):
        table.add_column(header, justify="left" if header == "JOB" else "right")
    for job in jobs:
        prunable, whole = job.metrics.get("sparsity/prunable"), job.metrics.get("sparsity/model")
        if (out / job.name).is_dir():
            report = inspect(out / job.name)
            counted = {total.of: total.sparsity for total in report.totals}
            prunable = counted.get("prunable weights", prunable)
            whole = counted.get("all weights", whole)
        plain, compact = sizes[job.name]
        table.add_row(
            Text(job.name),
            _share(prunable),
            _share(whole),
            number(job.metrics.get("eval/loss")),
            _share(job.metrics.get("eval/accuracy")),
            size(plain),
            size(compact),
            duration(elapsed(job)),
        )
    return table


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}%"
