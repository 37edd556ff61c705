"""``prunus compare``: bring masks and facts of jobs to this machine, compare them in a process of their own, read the
answer. The comparison itself is ``jobs.comparison.compare``, which needs torch; nothing here does.
"""

import contextlib
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from prunus.configs.artifacts.comparison.result import COMPARISON_FILE, Comparison
from prunus.service.cli.waiting.references import resolve
from prunus.service.client import Client, fetch
from prunus.service.errors import NotFound, Refused
from prunus.service.wire import JobState

_NEEDED = ("torch", "matplotlib")
_OURS = "prunus: "
"""How a message of ours begins on the other process's stderr."""


def check_installed() -> None:
    """Refuse before anything is downloaded.

    Raises:
        Refused: This is the light install.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise Refused(
            f"comparing needs {' and '.join(missing)}, which this install lacks; `pip install 'prunus[train]'`, or add "
            "a job `compare: {jobs: [NAME, ...]}` to the campaign: it runs on the cluster, and `prunus fetch` brings "
            "its tables and pictures"
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


def compare(places: Sequence[Path], by: Sequence[str], out: Path | None, folder: Path) -> Comparison:
    """Compare directories in a process of their own.

    Args:
        out: Gets ``comparison.json``, ``README.md`` and ``figures/``; None: nothing is drawn.
        folder: For the answer, where there is no ``out``.

    Raises:
        Refused: They cannot be compared; the message says why.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise Refused(f"{out} is a file; name a directory")
    target = (out or folder / "answer").resolve()
    words = [word for key in by for word in ("--by", key)] + ([] if out else ["--no-figures"])
    command = [sys.executable, "-m", "prunus.jobs.comparison", *words, "--out", str(target)]
    command += ["--", *map(str, places)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own module
    if ended.returncode:
        ours = [line.removeprefix(_OURS) for line in ended.stderr.splitlines() if line.startswith(_OURS)]
        raise Refused(ours[-1] if ours else f"the comparison failed: {ended.stderr.strip()[-2000:]}")
    return Comparison.model_validate_json((target / COMPARISON_FILE).read_bytes())
