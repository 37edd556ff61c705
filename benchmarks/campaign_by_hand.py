"""The jobs of a recipe on this machine, with neither server nor Ray.

``python -m benchmarks.campaign_by_hand RECIPE OUT`` is for experiments of hundreds of short jobs on a machine of two
cores, where imports, Ray Jobs and Ray Train (about 45 CPU seconds a job) would be most of the work. One process
imports; each job is a fork of it that calls ``jobs.run.run_rank``, as a rank on a cluster does: same code, same result.
One rank a job. A job that left its artifact in ``OUT`` is not run again, so a broken run goes on where it was. Compare
with ``prunus compare OUT/*/artifacts``.
"""

import jobs.run as job  # isort: skip - first: it repairs torchaudio before transformers is imported

import argparse
import json
import os
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import torch

from configs import AnySpec, Launch, ResolvedSource, load_file
from configs.artifacts import MANIFEST, JobDirectory, sha256_file
from configs.sources import source_kind
from service.recipe_files import find_recipe

_LOOK_S = 0.05


def main(arguments: list[str]) -> int:
    """Run all jobs whose names match; 0 if all of them left an artifact."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.campaign_by_hand", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("recipe", help="a file, or a name that `prunus recipes` lists")
    parser.add_argument("out", type=Path, help="a directory per job is made in it")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="names of jobs, with * and ?")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="a.b=value")
    parser.add_argument("--parallel", type=int, default=os.cpu_count() or 1, help="jobs at a time, a thread each")
    given = parser.parse_args(arguments)
    campaign = load_file(find_recipe(given.recipe), given.overrides, base=Path.cwd())
    chosen = [spec for spec in campaign.jobs if any(fnmatch(spec.name, pattern) for pattern in given.only)]
    out: Path = given.out.resolve()
    torch.set_num_threads(1)
    failed = run_all(chosen, out, given.parallel)
    for spec in chosen:
        if (record := JobDirectory(out / spec.name).artifacts / "job.json").is_file():
            metrics = json.loads(record.read_text(encoding="utf-8"))["metrics"]
            rates = ", ".join(f"{k} {v:.4f}" for k, v in metrics.items() if k.startswith("eval/") and k.count("/") == 1)
            print(f"{spec.name}: {rates}")
    print(f"{len(chosen) - len(failed)} of {len(chosen)} jobs have their artifact; not: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def run_all(specs: list[AnySpec], out: Path, parallel: int) -> list[str]:
    """Run each job once its sources are there; names of those that have no artifact in the end."""
    waiting = [spec for spec in specs if not _artifact(out, spec.name).is_file()]
    running: dict[int, tuple[str, float]] = {}
    while waiting or running:
        ready = [spec for spec in waiting if all(_is_there(out, ref) for ref in spec.sources.values())]
        if ready and len(running) < parallel:
            waiting.remove(ready[0])
            running[_fork(ready[0], out)] = ready[0].name, time.monotonic()
            continue
        if not running:
            break  # what these need did not come
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            time.sleep(_LOOK_S)
            continue
        name, began = running.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        print(f"{name}: exit {code} after {time.monotonic() - began:.0f} s; {len(waiting)} wait", flush=True)
    return [spec.name for spec in specs if not _artifact(out, spec.name).is_file()]


def _artifact(out: Path, name: str) -> Path:
    return JobDirectory(out / name).artifacts / MANIFEST


def _is_there(out: Path, reference: str) -> bool:
    return source_kind(reference) != "job" or _artifact(out, reference.removeprefix("job:")).is_file()


def _resolve(out: Path, reference: str) -> ResolvedSource:
    kind = source_kind(reference)
    root = JobDirectory(out / reference.removeprefix("job:")).artifacts if kind == "job" else Path(reference)
    if (root / MANIFEST).is_file():
        digest = sha256_file(root / MANIFEST)
        return ResolvedSource(reference=reference, kind="artifact", location=str(root), manifest_sha256=digest)
    return ResolvedSource(reference=reference, kind="hub" if kind == "hub" else "directory", location=reference)


def _fork(spec: AnySpec, out: Path) -> int:
    """Start the job in a child process; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        (out / spec.name).mkdir(parents=True, exist_ok=True)
        with (out / spec.name / "output.log").open("w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        job.run_rank(
            Launch(
                prunus_version=job.__version__,
                job_id=spec.name,
                job_name=spec.name,
                attempt=1,
                attempt_id=f"{spec.name}-a1",
                token="1",
                job_dir=str(out / spec.name),
                cache_dir=str(out / "cache"),
                spec=spec,
                sources={role: _resolve(out, reference) for role, reference in spec.sources.items()},
            )
        )
        code = 0
    finally:
        os._exit(code)  # exit hooks of a dozen libraries have nothing to do here


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
