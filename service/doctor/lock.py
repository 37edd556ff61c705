"""The releases that were tested together, from the lock file that is shipped beside this module."""

import re
from importlib.resources import files

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#]+)")


def locked_versions() -> dict[str, str]:
    """Return release by package, as ``requirements.lock`` names them."""
    return parse_lock(files(__package__).joinpath("requirements.lock").read_text(encoding="utf-8"))


def parse_lock(text: str) -> dict[str, str]:
    """Return release by normalised name (lower case, dashes)."""
    pins = (_PIN.match(line) for line in text.splitlines())
    return {normalise(pin[1]): pin[2] for pin in pins if pin}


def normalise(name: str) -> str:
    """Spell a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
