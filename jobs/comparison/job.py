"""A job that compares what others left, on the cluster: one rank, no training.

sources -> candidates (mask, job.json; verified) -> compare -> artifacts/ (comparison.json, README.md, figures/,
job.json, manifest.json last) -> MLflow
"""

import logging
import re
import shutil
from pathlib import Path

from prunus.configs import ComparisonSpec, Launch, ResolvedSource
from prunus.configs.artifacts.comparison.candidates import Candidate, read_candidate
from prunus.configs.artifacts.comparison.compare import compare, write
from prunus.configs.artifacts.comparison.result import FIGURES, Comparison
from prunus.configs.artifacts.layout import JobDirectory
from prunus.configs.artifacts.manifest import MANIFEST, sha256_file
from prunus.jobs.attempt import Attempt
from prunus.jobs.comparison.figures import draw
from prunus.jobs.errors import UserError
from prunus.jobs.models.sources import open_source
from prunus.jobs.results.facts import spec_facts
from prunus.jobs.results.finish import PUBLISH_WAIT_S, Result
from prunus.jobs.results.records import write_manifest, write_record

log = logging.getLogger(__name__)
_NO_PARAM_NAME = re.compile(r"[^A-Za-z0-9_.:/ -]")
"""What MLflow takes in no name of a parameter; references may hold it."""


def compare_and_publish(attempt: Attempt, spec: ComparisonSpec) -> Result | None:
    """Compare the sources of a launch, leave the artifacts and hand them to MLflow.

    Raises:
        JobError, ConfigError: A source is missing, damaged or has nothing to compare; no two masks fit each other.
    """
    launch, directory = attempt.launch, attempt.directory
    reporter, tracker = attempt.reporter, attempt.tracker
    reporter.phase("data")
    opened = {name: open_candidate(name, source, directory, launch) for name, source in launch.sources.items()}
    lineage = {name: text for name, (_, text) in opened.items()}
    if tracker is None:
        return None
    tracker.params(spec_facts(spec, {_NO_PARAM_NAME.sub("_", name): text for name, text in lineage.items()}))
    found = compare([candidate for candidate, _ in opened.values()], spec.compare.by)
    for note in found.notes:
        log.warning("%s", note)
    reporter.phase("saving")
    attempt.guard()
    root, metrics = directory.artifacts, _summary(found)
    shutil.rmtree(root, ignore_errors=True)  # of an attempt that died here
    write(found, root, launch.job_name, draw(found, root / FIGURES))
    write_record(root, launch, 0, metrics)
    manifest_sha256 = write_manifest(root, launch, lineage)
    reporter.phase("publishing")
    tracker.metrics(0, metrics)
    tracker.artifacts(root, "")
    tracker.status("FINISHED")
    published = tracker.close(PUBLISH_WAIT_S if launch.mlflow_uri else 0.0)
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    return Result(metrics, tracker.run_id, published, manifest_sha256, size, "; ".join(found.notes)[:1000])


def open_candidate(name: str, source: ResolvedSource, directory: JobDirectory, launch: Launch) -> tuple[Candidate, str]:
    """Bring a source to disk and read what is compared.

    Returns:
        The candidate, and ``REFERENCE sha256:DIGEST`` of its manifest (the reference alone without one).

    Raises:
        JobError, ConfigError: As in :func:`compare_and_publish`.
    """
    if source.kind == "run":
        downloads = directory.root / "downloads"
        lineage = open_source(source, downloads, launch.mlflow_uri).lineage
        return read_candidate(downloads / source.location, source=source.reference), lineage
    place, lineage = Path(source.location).expanduser(), source.reference
    if not place.exists():
        raise UserError(f"{source.reference}: {place} does not exist on this node; check the path")
    if (place / MANIFEST).is_file():
        digest = sha256_file(place / MANIFEST)
        if source.manifest_sha256 not in {None, digest}:
            raise UserError(f"{source.reference}: {place / MANIFEST} changed since the job that made it ended")
        lineage = f"{source.reference} sha256:{digest}"
    # A job is called as the recipe calls it; a directory or registry entry by what lies in it.
    return read_candidate(place, name if f"job:{name}" == source.reference else "", source.reference), lineage


def _summary(found: Comparison) -> dict[str, float]:
    """Figures for the run's page: how many took part, and means over the pairs of different masks."""
    metrics: dict[str, float] = {"compare/jobs": len(found.entries), "compare/masks": len(found.masked)}
    for key in ("iou_kept", "iou_removed", "random_iou_kept", "random_iou_removed", "flipped"):
        matrix = getattr(found, key)
        values = [value for row, line in enumerate(matrix) for value in line[:row] if value is not None]
        if values:
            metrics[f"compare/{key}"] = sum(values) / len(values)
    return metrics
