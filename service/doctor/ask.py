"""Run the probe as a process of its own, with a limit of time, and gather what it printed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from prunus.service.doctor.facts import Facts

PROBE = (sys.executable, "-m", "prunus.service.doctor.probe")
TIMEOUT_S = 120.0
"""Importing all libraries of a job takes about 20 s on a machine that does nothing else."""


def ask(command: Sequence[str] = PROBE, timeout_s: float = TIMEOUT_S) -> Facts:
    """Return what the probe found, also where it hung or crashed."""
    started = time.monotonic()
    environ = os.environ | {"HF_HUB_OFFLINE": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    try:
        run = subprocess.run(  # noqa: S603 - the command is ours
            command, capture_output=True, text=True, timeout=timeout_s, check=False, env=environ, errors="replace"
        )
    except subprocess.TimeoutExpired as error:
        printed = error.stdout or b""
        text = printed.decode(errors="replace") if isinstance(printed, bytes) else printed
        return gather(text, f"the probe was stopped after {time.monotonic() - started:.0f} s")
    last = (run.stderr.strip().splitlines() or [""])[-1][:300]
    return gather(run.stdout, f"the probe ended with code {run.returncode}: {last}" if run.returncode else "")


def gather(printed: str, ended: str) -> Facts:
    """Put the objects of the probe's output together; lines that libraries print are passed over."""
    found: dict[str, Any] = {}
    for line in printed.splitlines():
        try:
            facts = json.loads(line)
        except ValueError:
            continue
        if not isinstance(facts, dict):
            continue
        packages = found.get("packages", {}) | facts.get("packages", {})
        found |= facts | {"packages": packages}
    return Facts.model_validate(found | {"ended": ended})
