"""The record of a job and the manifest of its files."""

from datetime import UTC, datetime
from pathlib import Path

from prunus.configs import JobRecord, Launch
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import JOB_RECORD
from prunus.configs.artifacts.manifest import MANIFEST, Manifest, build_entries, sha256_file
from prunus.configs.artifacts.mask_file import FOLDER, Facts
from prunus.jobs.sparsity import mask_store
from prunus.jobs.sparsity.arithmetic import Masks


def write_mask(masks: Masks, artifacts: Path, facts: Facts) -> None:
    """Write ``masks/step-N/`` of the artifacts."""
    if masks:
        mask_store.save(masks, artifacts / FOLDER / f"step-{facts.step}", facts)


def write_record(artifacts: Path, launch: Launch, num_steps: int, metrics: dict[str, float], result: str = "") -> None:
    """Write ``job.json``: the resolved spec and the final metrics, for who compares artifacts without a server.

    Args:
        result: Kind of result, as of ``methods.base.Finished``; empty for a job that makes no model.
    """
    record = JobRecord(
        job_id=launch.job_id,
        job_name=launch.job_name,
        campaign_name=launch.campaign_name,
        spec=launch.spec.model_dump(mode="json", by_alias=True),
        result=result,
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
