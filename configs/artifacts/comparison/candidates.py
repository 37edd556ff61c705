"""What takes part in a comparison: the mask and the record of a job, read from its directory."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.configs.artifacts import mask_file
from prunus.configs.artifacts.layout import JOB_RECORD
from prunus.configs.artifacts.manifest import MANIFEST, read_manifest, verify
from prunus.configs.artifacts.mask_file import PackedMask
from prunus.configs.errors import ArtifactMissing, ArtifactRefused, ConfigError
from prunus.configs.records.outcome import JobRecord
from prunus.configs.specs.union import is_comparison

_SHORT = {"task": "task.name", "method": "method.name"}
"""Keys of ``by`` that stand for a path into the spec."""


@dataclass(frozen=True)
class Candidate:
    """What takes part.

    Attributes:
        name: How it is called; need not be unique.
        source: Reference or directory, for the record.
        record: What ``job.json`` says; None without one.
        mask: None for a job that prunes nothing.
    """

    name: str
    source: str
    record: JobRecord | None = None
    mask: PackedMask | None = None

    def value(self, key: str) -> str | None:
        """What it has for a key of ``by``; None if nothing."""
        if self.record is None:
            return self.mask.facts.get("method") if self.mask and key == "method" else None
        value: Any = self.record.spec.get("labels", {}).get(key)
        if value is None and key == "campaign":
            value = self.record.campaign_name
        elif value is None:
            value = self.record.spec
            for part in _SHORT.get(key, key).split("."):
                value = value.get(part) if isinstance(value, dict) else None
        return value if value is None or isinstance(value, str) else json.dumps(value)


def read_candidate(directory: Path, name: str = "", source: str = "") -> Candidate:
    """Read mask and facts of a directory; what its manifest names of them is verified.

    Args:
        directory: A job's artifacts, a fetched directory, a directory with ``mask.safetensors``, or that file.
        name: Empty: the job's name, else the directory's.
        source: Empty: the directory.

    Raises:
        ArtifactMissing: There is nothing to compare.
        ArtifactRefused: It is a comparison itself.
        ConfigError: A file differs from the manifest, or ``job.json`` cannot be read.
        Damaged: The mask is damaged.
    """
    made_by = ""
    if (directory / MANIFEST).is_file():
        made_by = read_manifest(directory).job_name
        for prefix in (f"{mask_file.FOLDER}/", JOB_RECORD):
            verify(directory, prefix=prefix)
    record = _read_record(directory / JOB_RECORD)
    place = mask_file.newest(directory)
    if place is None and (directory.is_file() or (directory / mask_file.FILE_NAME).is_file()):
        place = directory
    if place is None and record is None:
        raise ArtifactMissing(
            f"{directory} has neither a mask ({mask_file.FOLDER}/step-N/{mask_file.FILE_NAME}) nor {JOB_RECORD}; name "
            "the artifacts of a job, or a directory that `prunus fetch` wrote"
        )
    if record is not None and is_comparison(record.spec):
        raise ArtifactRefused(f"{source or directory} compares and has nothing to compare itself; name jobs that train")
    called = name or (record.job_name if record else made_by) or directory.resolve().name
    return Candidate(called, source or str(directory), record, mask_file.load_packed(place) if place else None)


def unique_names(candidates: Sequence[Candidate]) -> list[str]:
    """Names; where two are equal, with the campaign; where that does not help, with a number."""
    names = [one.name for one in candidates]
    full = [
        f"{one.record.campaign_name}/{one.name}"
        if names.count(one.name) > 1 and one.record and one.record.campaign_name
        else one.name
        for one in candidates
    ]
    unique: list[str] = []
    for name in full:
        number = 2
        while name in unique:
            name, number = f"{name.rsplit(' #', 1)[0]} #{number}", number + 1
        unique.append(name)
    return unique


def _read_record(path: Path) -> JobRecord | None:
    try:
        return JobRecord.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {str(error)[:300]}", remedy="fetch it again") from error
