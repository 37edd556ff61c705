"""One job by hand, with neither service nor Ray: ``python -m prunus.jobs spec.yaml out/ [a.b=c ...]``.

``from:`` is a directory or a hub id. Several ranks: ``torchrun --nproc-per-node 2 -m prunus.jobs spec.yaml out/``.
"""

import json
import sys
from pathlib import Path

from prunus.configs import ConfigError, load_file
from prunus.jobs.by_hand import launch_by_hand
from prunus.jobs.errors import JobError
from prunus.jobs.import_failure import unloadable_torchaudio

try:
    from prunus.jobs.run import run_rank
except Exception as error:  # of torch, transformers, or what these load
    if (broken := unloadable_torchaudio(error)) is None:
        raise
    sys.exit(f"prunus: {broken}")


def main(arguments: list[str]) -> int:
    """Run the job of ``arguments`` (spec, output directory, overrides); returns the exit code."""
    if len(arguments) < 2:
        sys.stderr.write("usage: python -m prunus.jobs SPEC.yaml OUT_DIR [a.b=value ...]\n")
        return 2
    try:
        campaign = load_file(Path(arguments[0]), arguments[2:], base=Path.cwd())
        if len(campaign.jobs) != 1:
            raise ConfigError(
                f"{arguments[0]} has {len(campaign.jobs)} jobs", remedy="by hand one job is run at a time"
            )
        launch = launch_by_hand(campaign.jobs[0], Path(arguments[1]).resolve())
        result = run_rank(launch)
    except (ConfigError, JobError) as error:
        sys.stderr.write(f"prunus: {error}\n")
        return 1
    if result is not None:
        sys.stdout.write(json.dumps(result.metrics | {"bytes_on_disk": result.bytes_on_disk}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
