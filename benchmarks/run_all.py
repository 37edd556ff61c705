"""``make bench``: every benchmark in its quick form, one process each, about ten minutes on two quiet cores.

``--startup`` adds the start-up time of a job, which starts and ends an embedded default in a temporary directory.
"""

import os
import subprocess
import sys
import tempfile
import time

QUICK = (
    ("masked_step", "--turns", "8"),
    ("masked_step", "--turns", "6", "--zero2", "--model", "1"),
    ("mask_update", "--turns", "3", "--layers", "4"),
    ("projection",),
    ("selection", "--millions", "10", "--turns", "2", "--ranks", "2"),
    ("sparse_file", "--layers", "2"),
    ("memory", "--layers", "2"),
    ("speech_loading", "--clips", "96", "--turns", "3"),
    ("speech_evaluation", "--turns", "2"),
)


def main() -> int:
    """Run them one after another; 0 if none failed."""
    with tempfile.TemporaryDirectory(prefix="prunus-bench-") as home:
        runs = [*QUICK, ("startup", "--home", home)] if "--startup" in sys.argv[1:] else list(QUICK)
        return max(_run(*words) for words in runs)


def _run(name: str, *arguments: str) -> int:
    print(f"\n## python -m benchmarks.{name} {' '.join(arguments)}\n", flush=True)
    began = time.monotonic()
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}", *arguments]
    code = subprocess.run(command, env=environment, check=False).returncode
    print(f"\n{name}: exit {code}, {time.monotonic() - began:.0f} s", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
