"""What a finished job leaves: artifacts with a manifest, figures, and the facts of its MLflow run."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from prunus.configs import Launch
from prunus.configs.artifacts.compact.layout import FOLDER
from prunus.configs.artifacts.compact.pack import pack
from prunus.configs.artifacts.layout import JobDirectory
from prunus.configs.artifacts.mask_file import Facts
from prunus.configs.errors import ArtifactError
from prunus.jobs.results import figures
from prunus.jobs.results.model_card import model_card
from prunus.jobs.results.model_directory import write_model
from prunus.jobs.results.records import write_manifest, write_mask, write_record
from prunus.jobs.training.training import Training

log = logging.getLogger(__name__)

PUBLISH_WAIT_S = 120.0
"""Seconds that a finished job gives MLflow to take the rest; what remains is carried over later (``late_publish``)."""


@dataclass(frozen=True)
class Result:
    """What a job ended with; copied into the attempt's outcome.

    Attributes:
        metrics: Final values, as in the MLflow run.
        run_id: MLflow run, if MLflow was reached.
        published: MLflow has everything.
        manifest_sha256: Digest of ``artifacts/manifest.json``.
        bytes_on_disk: Size of ``artifacts/model``.
        message: What the user should be told though the job succeeded.
    """

    metrics: dict[str, float]
    run_id: str | None
    published: bool
    manifest_sha256: str
    bytes_on_disk: int
    message: str = ""


def finish_job(
    run: Training,
    launch: Launch,
    directory: JobDirectory,
    metrics: dict[str, float],
) -> Result | None:
    """Write artifacts and hand them to MLflow (collective; rank 0 writes)."""
    root, spec = directory.artifacts, run.spec
    if run.ranks.is_main:
        shutil.rmtree(root, ignore_errors=True)  # of an attempt that died here, or of an earlier run by hand
    lineage = run.lineage
    finished = run.method.finish()
    masks = finished.masks
    card = model_card(launch, lineage, metrics, spec.model.source)
    measured = write_model(run.engine, run.data.processor, masks, root / "model", card)
    if run.tracker is None:
        run.ranks.barrier()
        return None
    metrics = {**metrics, **measured}
    facts = Facts(spec.method.name, run.num_steps, finished.pattern, run.method.start.base_sha256, lineage)
    write_mask(masks, root, facts)
    _pack(root)
    _draw(run, root / "figures")
    write_record(root, launch, run.num_steps, metrics, finished.kind)
    manifest_sha256 = write_manifest(root, launch, lineage)
    run.reporter.phase("publishing")
    tracker = run.tracker
    tracker.metrics(run.num_steps, measured)
    tracker.artifacts(root, "")
    if spec.output.register_as:
        tracker.register(spec.output.register_as, spec.output.alias, "model")
    tracker.status("FINISHED")
    published = tracker.close(PUBLISH_WAIT_S if launch.mlflow_uri else 0.0)
    run.ranks.barrier()
    size = sum(path.stat().st_size for path in (root / "model").rglob("*") if path.is_file())
    return Result(metrics, tracker.run_id, published, manifest_sha256, size, run.task.warning(metrics))


def _pack(artifacts: Path) -> None:
    """Add the compact form; a trained model is not lost for want of it."""
    try:
        pack(artifacts / "model", artifacts / FOLDER)
    except (OSError, ArtifactError) as error:
        log.warning("no compact form: %s", error)
        shutil.rmtree(artifacts / FOLDER, ignore_errors=True)


def _draw(run: Training, directory: Path) -> None:
    if run.weights is None:
        return
    figures.sparsity_per_layer(run.weights.sparsity_by_weight(), directory / "sparsity_per_layer.png")
    if run.history:
        aims = [(step, run.method.target_sparsity(step)) for step in range(run.num_steps + 1)]
        target = [(step, sparsity) for step, sparsity in aims if sparsity is not None]
        figures.sparsity_schedule(run.history, target, directory / "sparsity_schedule.png")
        figures.iou_over_updates(run.history, directory / "mask_iou.png")
