"""The jobs of a recipe on this machine, with neither server nor Ray.

``python -m benchmarks.campaign_by_hand RECIPE OUT`` is for experiments of hundreds of short jobs on a machine of two
cores, where imports, Ray Jobs and Ray Train (about 45 CPU seconds a job) would be most of the work. One process
imports; each job is a fork of it that calls ``jobs.run.run_rank``, as a rank on a cluster does: same code, same result.
One rank a job. A job that left its artifact in ``OUT`` with the same spec is not run again, so a broken run goes on
where it was. What a recipe's comparison says is in ``OUT/compare/artifacts/README.md``.
"""

import argparse
import json
import os
import sys
import time
import traceback
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from prunus.configs import AnySpec, ConfigError, ResolvedSource, load_file
from prunus.configs.artifacts.layout import JOB_RECORD, JobDirectory
from prunus.configs.artifacts.manifest import MANIFEST, sha256_file
from prunus.configs.values.sources import source_kind
from prunus.jobs import run
from prunus.jobs.by_hand import launch_by_hand, source_by_hand
from prunus.service.submission.shipped_recipes import find_recipe


def main(arguments: list[str]) -> int:
    """Run all jobs whose names match; 0 if all of them left an artifact."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.campaign_by_hand", description=__doc__)
    parser.add_argument("recipe", help="a file, or a name that `prunus recipes` lists")
    parser.add_argument("out", type=Path, help="a directory per job is made in it")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="names of jobs, with * and ?")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="a.b=value")
    parser.add_argument("--parallel", type=int, default=os.cpu_count() or 1, help="jobs at a time, a thread each")
    given = parser.parse_args(arguments)
    try:
        campaign = load_file(find_recipe(given.recipe), given.overrides, base=Path.cwd())
        chosen = [spec for spec in campaign.jobs if any(fnmatch(spec.name, pattern) for pattern in given.only)]
        if not chosen:
            raise ConfigError(f"--only {' '.join(given.only)}: no job of {given.recipe} has such a name")
        run_all(chosen, given.out.resolve(), max(1, given.parallel))
    except ConfigError as error:
        parser.error(str(error))
    return report(chosen, given.out.resolve())


def run_all(specs: list[AnySpec], out: Path, parallel: int) -> None:
    """Run each job once those that it needs are there.

    Raises:
        ConfigError: A directory holds the artifact of another spec.
    """
    torch.set_num_threads(1)
    waiting = [spec for spec in specs if not _is_made(spec, out)]
    running: dict[int, tuple[str, float]] = {}
    while waiting or running:
        ready = next((spec for spec in waiting if not _missing(spec, out)), None)
        if ready is not None and len(running) < parallel:
            waiting.remove(ready)
            running[_fork(ready, out)] = ready.name, time.monotonic()
            continue
        if not running:
            break  # what these need did not come
        pid, status = os.wait()
        if pid not in running:
            continue  # a library's
        name, began = running.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        print(f"{name}: exit {code} after {time.monotonic() - began:.0f} s; {len(waiting)} wait", flush=True)


def report(specs: list[AnySpec], out: Path) -> int:
    """Print what the jobs measured, and what is missing; 0 if nothing is."""
    failed = 0
    for spec in specs:
        if not _artifact(out, spec.name).is_file():
            failed += 1
            missing = _missing(spec, out)
            print(f"{spec.name}: " + (f"needs {', '.join(missing)}" if missing else f"failed: {out / spec.name}/*.log"))
            continue
        record = _record(out, spec.name)
        if record is None:
            print(f"{spec.name}: {JobDirectory(out / spec.name).artifacts}/README.md")
            continue
        metrics = {name: value for name, value in record["metrics"].items() if name.startswith("eval/")}
        print(f"{spec.name}: " + ", ".join(f"{k} {v:.4f}" for k, v in metrics.items() if k.count("/") == 1))
    print(f"{len(specs) - failed} of {len(specs)} jobs have left their artifact")
    return 1 if failed else 0


def _artifact(out: Path, name: str) -> Path:
    return JobDirectory(out / name).artifacts / MANIFEST


def _record(out: Path, name: str) -> dict[str, Any] | None:
    """What a job says of itself; None for a comparison."""
    place = JobDirectory(out / name).artifacts / JOB_RECORD
    record: dict[str, Any] | None = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else None
    return record


def _is_made(spec: AnySpec, out: Path) -> bool:
    record = _record(out, spec.name) if _artifact(out, spec.name).is_file() else None
    if record is None:
        return False
    if record["spec"] != spec.model_dump(mode="json", by_alias=True):
        raise ConfigError(f"{out / spec.name} was made by another spec", remedy="give another OUT, or delete it")
    return True


def _missing(spec: AnySpec, out: Path) -> list[str]:
    """Jobs that this one needs and that have left no artifact."""
    sources = [ref.removeprefix("job:") for ref in spec.sources.values() if source_kind(ref) == "job"]
    return [name for name in (*sources, *spec.after) if not _artifact(out, name).is_file()]


def _fork(spec: AnySpec, out: Path) -> int:
    """Start the job in a child process; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        (out / spec.name).mkdir(parents=True, exist_ok=True)
        log = os.open(out / spec.name / "output.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)

        def resolve(role: str, reference: str) -> ResolvedSource:
            if source_kind(reference) != "job":
                return source_by_hand(role, reference)
            root = JobDirectory(out / reference.removeprefix("job:")).artifacts
            digest = sha256_file(root / MANIFEST)
            return ResolvedSource(reference=reference, kind="artifact", location=str(root), manifest_sha256=digest)

        launch = launch_by_hand(spec, out / spec.name, resolve)
        run.run_rank(launch.model_copy(update={"cache_dir": str(out / "cache")}))
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # exit hooks of a dozen libraries have nothing to do here


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
