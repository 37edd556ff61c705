"""What a job reads from this machine's disk and does not find there. Only right where ranks share its file system."""

import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prunus.configs import AnySpec, JobSpec
from prunus.configs.tasks.ctc import CTC
from prunus.configs.tasks.speech_data import SpeechSource
from prunus.configs.values.sources import source_kind
from prunus.configs.values.wording import listed


@dataclass(frozen=True)
class Missing:
    """One thing that is not there.

    Attributes:
        what: It, in words.
        place: Path in the job's spec.
        remedy: What to do.
    """

    what: str
    place: str
    remedy: str


def missing_by_jobs(jobs: Iterable[AnySpec]) -> dict[Missing, str]:
    """What is missing, each thing once, and the names of the jobs that want it."""
    found: dict[Missing, list[str]] = {}
    for job in jobs:
        for missing in missing_files(job):
            found.setdefault(missing, []).append(job.name)
    return {missing: listed(dict.fromkeys(names)) for missing, names in found.items()}


def missing_files(job: AnySpec) -> Iterator[Missing]:
    """Look for data, clips, vocabulary and directories of models and masks."""
    if isinstance(job, JobSpec):
        yield from _missing_data(job)
    for role, reference in job.sources.items():
        if source_kind(reference) == "directory" and (what := _lacking(Path(reference).expanduser(), role, job)):
            is_model = isinstance(job, JobSpec) and role != "mask"
            writer = "transformers' save_pretrained or" if is_model else "a job or"
            place = role if isinstance(job, JobSpec) else "compare.jobs"
            yield Missing(f"{what} {reference!r}", place, f"name a directory that {writer} `prunus fetch` wrote")


def _missing_data(job: JobSpec) -> Iterator[Missing]:
    for split, source in job.task.data.sources.items():
        for index, pattern in enumerate(source.files):
            if "://" not in pattern and not Path(pattern).exists() and not glob.glob(pattern, recursive=True):  # noqa: PTH207
                yield Missing(
                    f"no file matches {pattern!r}",
                    f"task.data.{split}.files[{index}]",
                    "mend the path; relative ones are taken from the directory where you run `prunus submit`",
                )
        if isinstance(source, SpeechSource) and source.clips and not Path(source.clips).is_dir():
            yield Missing(
                f"there is no directory {source.clips!r}",
                f"task.data.{split}.clips",
                "say where the clips of this source are, or leave clips out where they lie beside it",
            )
    if isinstance(job.task, CTC):
        vocabulary = job.task.transcripts.vocabulary
        if vocabulary not in {"train", "model"} and not Path(vocabulary).is_file():
            yield Missing(
                f"there is no file {vocabulary!r}",
                "task.transcripts.vocabulary",
                "write train, model, or the path of a vocab.json",
            )


def _lacking(directory: Path, role: str, job: AnySpec) -> str:
    """What keeps a directory from being a source in that role, in words ahead of its name; "" for nothing."""
    if not directory.exists():
        return "there is no directory"
    if not isinstance(job, JobSpec):
        return ""
    if role == "mask":
        return "" if any(directory.glob("masks/step-*/mask.safetensors")) else "has no masks/step-N/mask.safetensors:"
    below = (directory, directory / "model")  # a job leaves its model in there
    return "" if any((place / "config.json").is_file() for place in below) else "has no config.json:"
