"""What each rank runs, in a Ray Train worker or, of a comparison, in the driver: the one place where this room reaches
``jobs``.

Imports of ``jobs`` (and so of torch and transformers) happen inside the function, in the rank's process; a driver of a
gang stays light.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prunus.configs import Launch
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import JobDirectory

RESULT = "result.json"


def run_rank(config: dict[str, Any]) -> None:
    """Run this rank of the attempt; rank 0 leaves ``result.json`` for the driver.

    Args:
        config: ``{"launch": path of launch.json}``.
    """
    launch = Launch.model_validate_json(Path(config["launch"]).read_text(encoding="utf-8"))
    try:
        from prunus.jobs import run  # noqa: PLC0415 - a seam: torch is loaded by ranks only
    except Exception as error:  # of torch, transformers, or what these load
        from prunus.jobs.import_failure import report_import_failure  # noqa: PLC0415 - the same seam

        report_import_failure(launch, error)
        raise
    result = run.run_rank(launch)
    if result is not None:
        write_atomic(JobDirectory(launch.job_dir).attempt(launch.attempt) / RESULT, json.dumps(asdict(result)))
