"""Resolved sources on disk: where a checkpoint lies, verified, and the mask that it brings."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from prunus.configs import ConfigError, ResolvedSource
from prunus.configs.artifacts import mask_file
from prunus.configs.artifacts.atomic_write import directory_aside, leftovers
from prunus.configs.artifacts.compact.layout import is_compact_name, is_plain_name
from prunus.configs.artifacts.manifest import MANIFEST, sha256_file, verify
from prunus.jobs.errors import ModelError, PruningError
from prunus.jobs.sparsity import mask_store
from prunus.jobs.sparsity.arithmetic import Masks

SPEECH_TASKS = {"ctc", "wav2vec2_pretraining"}
"""Tasks that hear."""


@dataclass(frozen=True)
class Origin:
    """A source on disk (or a hub id), verified.

    Attributes:
        reference: As the user wrote it.
        location: Directory or hub id that transformers loads.
        mask_directory: Where the source's mask lies; None if it has none.
        lineage: ``REFERENCE sha256:DIGEST`` of its manifest, or the reference alone.
    """

    reference: str
    location: str
    mask_directory: Path | None
    lineage: str


def open_source(source: ResolvedSource, download_to: Path, mlflow_uri: str | None = None) -> Origin:
    """Bring a source to disk and verify its manifest.

    Args:
        download_to: Where the artifacts of an MLflow run go, unless they are there already.
        mlflow_uri: MLflow that has them.

    Raises:
        ModelError: Missing, damaged, tampered with, or not the one that the server resolved.
    """
    if source.kind == "hub":
        return Origin(source.reference, source.location, None, source.reference)
    directory = Path(source.location)
    if source.kind == "run":
        directory = _download(source, download_to / source.location, mlflow_uri)
    if not directory.is_dir():
        raise ModelError(f"{source.reference}: the directory {directory} does not exist on this node; check the path")
    if (directory / "artifacts" / MANIFEST).is_file():
        raise ModelError(
            f"{source.reference} is where a job ran by hand; what it left is below: write {source.reference}/artifacts"
        )
    if not (directory / MANIFEST).is_file():
        _refuse_compact(directory, source.reference)
        if source.kind != "directory":
            raise ModelError(
                f"{source.reference}: {directory} has no {MANIFEST}: the job that makes it has not finished"
            )
        return Origin(source.reference, str(directory), mask_file.newest(directory), source.reference)
    digest = sha256_file(directory / MANIFEST)
    if source.manifest_sha256 not in {None, digest}:
        raise ModelError(
            f"{source.reference}: {directory / MANIFEST} changed since the job that made it ended; do not use it"
        )
    try:
        verify(directory)
    except ConfigError as error:
        raise ModelError(f"{source.reference}: {error}") from error
    model = directory / "model" if (directory / "model").is_dir() else directory
    _refuse_compact(model, source.reference)
    return Origin(source.reference, str(model), mask_file.newest(directory), f"{source.reference} sha256:{digest}")


def _refuse_compact(directory: Path, reference: str) -> None:
    names = [file.name for file in directory.iterdir()]
    if any(map(is_compact_name, names)) and not any(map(is_plain_name, names)):
        raise ModelError(
            f"{reference} holds the compact form of a model; turn it back first: prunus convert {reference} DEST --to "
            "plain"
        )


def _download(source: ResolvedSource, directory: Path, mlflow_uri: str | None) -> Path:
    if (directory / MANIFEST).is_file():  # written last; the directory comes whole
        return directory
    for left in leftovers(directory.parent):  # of attempts that died
        shutil.rmtree(left, ignore_errors=True)
    try:
        with directory_aside(directory) as aside:
            mlflow.artifacts.download_artifacts(run_id=source.location, dst_path=str(aside), tracking_uri=mlflow_uri)
    except MlflowException as error:
        raise ModelError(
            f"{source.reference}: MLflow at {mlflow_uri} does not give the artifacts of run {source.location}: "
            f"{first_line(error)}"
        ) from error
    return directory


def load_mask(origin: Origin) -> Masks:
    """Read the mask that a source brings.

    Raises:
        PruningError: It brings none.
    """
    if origin.mask_directory is None:
        raise PruningError(f"{origin.reference} has no mask (masks/step-N/{mask_file.FILE_NAME}); use another source")
    return mask_store.load(origin.mask_directory)


def first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300]
