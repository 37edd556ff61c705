"""Compare job artifacts by hand: ``python -m prunus.jobs.comparison [--by KEY]... [NAME=]DIR... --out OUT``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from prunus.configs import ConfigError
from prunus.configs.artifacts.comparison.candidates import read_candidate
from prunus.configs.artifacts.comparison.compare import compare, write
from prunus.configs.artifacts.comparison.result import COMPARISON_FILE, FIGURES
from prunus.configs.errors import ArtifactError
from prunus.jobs.comparison.figures import draw


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m prunus.jobs.comparison", description=__doc__)
    parser.add_argument("places", nargs="+", metavar="[NAME=]DIR", help="artifacts of a job, or a fetched directory")
    parser.add_argument(
        "--by", action="append", metavar="KEY", help="label or setting; may be repeated; default: method"
    )
    parser.add_argument("--no-figures", action="store_true", help="comparison.json and README.md alone")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        candidates = [read_candidate(place, name) for name, place in map(_named, given.places)]
        found = compare(candidates, given.by or ("method",))
        drawn = [] if given.no_figures else draw(found, given.out / FIGURES)
        write(found, given.out, "Comparison", drawn)
    except (ConfigError, ArtifactError) as error:
        sys.stderr.write(f"prunus: {error}\n")
        return 1
    sys.stdout.write(f"{given.out / COMPARISON_FILE}\n")
    return 0


def _named(text: str) -> tuple[str, Path]:
    name, equals, place = text.partition("=")
    return (name, Path(place)) if equals and not Path(text).exists() else ("", Path(text))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
