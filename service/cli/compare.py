"""``prunus compare``: bring masks and facts of jobs to this machine and compare them, without torch.

The comparison itself is ``configs.artifacts.comparison.compare``; pictures are drawn in a process of their own.
"""

import contextlib
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from prunus.configs.artifacts.comparison import compare as comparing
from prunus.configs.artifacts.comparison.candidates import read_candidate
from prunus.configs.artifacts.comparison.result import FIGURES, Comparison
from prunus.configs.errors import ArtifactError, ConfigError
from prunus.service.cli.waiting.references import resolve
from prunus.service.client import Client, fetch
from prunus.service.errors import NotFound, Refused
from prunus.service.wire import JobState

_NEEDED = ("matplotlib",)
_DRAWING = "prunus.jobs.comparison.figures"


def check_installed() -> None:
    """Refuse before anything is downloaded.

    Raises:
        Refused: This install cannot draw.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise Refused(
            f"drawing needs {' and '.join(missing)}, which this install lacks; leave out --out, `pip install "
            "'prunus[train]'`, or add a job `compare: {jobs: [NAME, ...]}` to the campaign: it runs on the cluster, "
            "and `prunus fetch` brings its tables and pictures"
        )


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for masks, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="prunus-compare-") as folder:
        yield Path(folder)


def local_places(sources: Sequence[str]) -> dict[str, list[Path]]:
    """The sources that are directories of this machine.

    Raises:
        NotFound: One looks like a directory and does not exist.
    """
    places = {}
    for source in sources:
        if source.startswith((".", "/", "~")):
            place = Path(source).expanduser()
            if not place.exists():
                raise NotFound(f"there is no directory {source}; name a job, or a directory that `prunus fetch` wrote")
            places[source] = [place.resolve()]
    return places


def fetch_masks(
    client: Client,
    sources: Sequence[str],
    folder: Path,
    tell: Callable[[str], None],
    progress: fetch.Progress = lambda _name, _done, _total: None,
    *,
    campaign: bool = False,
) -> Mapping[str, list[Path]]:
    """Bring masks and ``job.json`` of every other source, each job once.

    Args:
        sources: job:NAME, models:/NAME@ALIAS, or names of jobs and campaigns. Of a campaign every job that succeeded
            is taken, dense ones too: they are where the curves begin.
        tell: Told what is left out, and why.
        campaign: Names are those of campaigns.

    Returns:
        Source -> directories below ``folder``; none that an earlier source brought.

    Raises:
        NotFound, Refused, Damaged, Unreachable: As of a fetch.
    """
    places: dict[str, list[Path]] = {}
    for source in sources:
        places[source] = []
        references, is_campaign = _references(client, source, tell, campaign=campaign)
        for reference in references:
            try:
                job_id = client.artifacts(reference).job_id
                if (folder / job_id).exists():
                    continue
                wanted = f"job:{job_id}"
                fetch.fetch(client, wanted, folder / job_id, masks_only=True, dense_too=True, progress=progress)
            except NotFound as error:
                if not is_campaign:
                    raise
                tell(f"left out: {error}")
            else:
                places[source].append(folder / job_id)
    return places


def _references(client: Client, source: str, tell: Callable[[str], None], *, campaign: bool) -> tuple[list[str], bool]:
    """What a source stands for, and whether it is a campaign."""
    if ":" in source:
        return [fetch.full_source(source)], False
    try:
        target = resolve(client, source, campaign=campaign)
    except NotFound as error:
        hint = f"; for the directory write ./{source}" if Path(source).is_dir() else ""
        raise NotFound(f"{error}{hint}") from error
    if target.campaign is None:
        return [f"job:{target.id}"], False
    jobs = [job for job in target.jobs if job.task != "comparison"]
    if away := [f"{job.name} ({job.state.value})" for job in jobs if job.state is not JobState.SUCCEEDED]:
        tell(f"left out of {source}: {', '.join(away)}")
    taken = [f"job:{job.id}" for job in jobs if job.state is JobState.SUCCEEDED]
    if not taken:
        raise NotFound(f"no job of the campaign {source} has succeeded; `prunus list --campaign {source}` shows them")
    return taken, True


def compare(places: Sequence[Path], by: Sequence[str], out: Path | None) -> Comparison:
    """Compare directories.

    Args:
        out: Gets ``comparison.json``, ``README.md`` and ``figures/``; None: nothing is written.

    Raises:
        Refused: They cannot be compared; the message says why.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise Refused(f"{out} is a file; name a directory")
    try:
        found = comparing.compare([read_candidate(place) for place in places], by)
    except (ArtifactError, ConfigError) as error:
        raise Refused(str(error)) from error
    if out is not None:
        out = out.resolve()
        comparing.write(found, out, "Comparison", _draw(found, out / FIGURES))
    return found


def _draw(comparison: Comparison, folder: Path) -> list[Path]:
    """Draw the pictures in a process of its own: matplotlib is not for the command line."""
    command = [sys.executable, "-m", _DRAWING, str(folder)]
    text = comparison.model_dump_json()
    ended = subprocess.run(command, input=text, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if ended.returncode:
        raise Refused(f"the pictures could not be drawn: {ended.stderr.strip()[-2000:]}")
    return [folder / name for name in ended.stdout.splitlines()]
