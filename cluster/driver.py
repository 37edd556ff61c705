"""Entry point of an attempt on the cluster: ``python -m prunus.cluster.driver LAUNCH.json``, started by Ray Jobs.

    read launch -> same version? -> fence -> a gang of ranks (``cluster.gang``) -> outcome.json (atomic, last)
                                             or, of a comparison, one rank in this process

Ray Train owns the worker group, its placement and the process group; this file only writes down how it ended.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from prunus.cluster.failures import explain_failure
from prunus.cluster.worker import RESULT, run_rank
from prunus.configs import Launch, Outcome, StopReason, __version__
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import JobDirectory

log = logging.getLogger(__name__)

log.setLevel(logging.INFO)  # whatever a rank in this process makes of the rest

_NICENESS = 15
"""Ray gives it to ranks, but not to drivers: a comparison must not outrank those that train."""


def main(path: str) -> int:
    """Run one attempt; returns 0 if it succeeded, 1 otherwise. The outcome is written in any case."""
    launch = Launch.model_validate_json(Path(path).read_text(encoding="utf-8"))
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s %(levelname).1s {launch.attempt_id} driver: %(message)s"
    )
    directory = JobDirectory(launch.job_dir)
    started_at = time.time()
    if directory.outcome(launch.attempt).exists():
        log.info("outcome exists: this attempt has run")
        return 0
    if not _fence(directory, launch):
        return 1
    facts: dict[str, Any] = {"reason": StopReason.LAUNCH_FAILED}
    try:
        _check_version(launch)
        _run(launch, path)
        facts = _success(directory, launch)
    except _WrongVersion as error:
        facts = {"reason": StopReason.USER_ERROR, "message": str(error)}
    except _NoRay as error:
        log.exception("the gang was not started")
        facts = {"reason": StopReason.LAUNCH_FAILED, "message": str(error)}
    except (SystemExit, KeyboardInterrupt):
        # Who asked is not known here: the service compares with what it asked for itself.
        facts = {"reason": StopReason.CANCELLED, "message": "the driver was told to stop"}
    except Exception as error:  # the edge of the process: whatever it is, the outcome says it
        log.exception("the attempt failed")
        facts = explain_failure(directory, launch, error)
    finally:
        outcome = Outcome(
            attempt_id=launch.attempt_id,
            token=launch.token,
            started_at=started_at,
            finished_at=time.time(),
            **facts,
        )
        write_atomic(directory.outcome(launch.attempt), outcome.model_dump_json(indent=1))
        log.info("outcome: %s %s", outcome.reason, outcome.message)
    return 0 if outcome.reason is StopReason.SUCCEEDED else 1


class _WrongVersion(Exception):
    """Server and cluster have different prunus."""


class _NoRay(Exception):
    """Ray, or what a gang needs of it, is not there."""


def _check_version(launch: Launch) -> None:
    if launch.prunus_version != __version__:
        raise _WrongVersion(
            f"the cluster has prunus {__version__}, the server {launch.prunus_version}; install the same on both, or "
            "let the server ship its code (PRUNUS_SHIP_CODE=1)"
        )


def _fence(directory: JobDirectory, launch: Launch) -> bool:
    """Take the job's directory for this attempt, unless a newer one has it."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        newest = int(directory.fence.read_text(encoding="utf-8"))
        if newest > int(launch.token):
            log.error("token %s is superseded by %s: this attempt stops without writing", launch.token, newest)
            return False
    write_atomic(directory.fence, launch.token)
    return True


def _run(launch: Launch, path: str) -> None:
    """Run all ranks to their end. A job without a gang runs here: Ray Train's actors (18 CPU seconds) would be most of
    its work, and Ray Jobs has placed this process where its CPU is free.
    """
    if not launch.spec.needs_gang:
        os.nice(_NICENESS)
        run_rank({"launch": path})
        return
    run_gang = _join()
    run_gang(launch, path)


def _join() -> Callable[[Launch, str], None]:
    """Join Ray; gives what runs a gang.

    Raises:
        _NoRay: Ray or what a gang needs of it is not there, or it is another one: no rank has begun.
    """
    try:
        from prunus.cluster.gang import connect, run_gang  # noqa: PLC0415 - a seam: Ray Train and torch, of gangs only

        connect()
    except Exception as error:  # of imports, of the connection, of versions that differ
        what = f"{type(error).__name__}: {str(error).strip()[:500]}"
        raise _NoRay(
            f"Ray could not be joined ({what}); check that the cluster has prunus[train], with the Ray that it runs"
        ) from error
    return run_gang


def _success(directory: JobDirectory, launch: Launch) -> dict[str, Any]:
    text = (directory.attempt(launch.attempt) / RESULT).read_text(encoding="utf-8")
    return {"reason": StopReason.SUCCEEDED, **json.loads(text)}


def enter() -> NoReturn:
    """Run the attempt whose launch the command line names; told to stop, leave an outcome that says so."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # Ray, once it is joined, does the same
    sys.exit(main(sys.argv[1]))


if __name__ == "__main__":
    enter()
