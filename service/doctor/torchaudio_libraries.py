"""Take torchaudio's compiled parts out of an environment where they do not load.

PyPI's wheel of torchaudio links CUDA's libraries. Beside a torch for CPUs, ``import torchaudio`` raises OSError, and so
does every import of a transformers model. Without the files ``torchaudio/lib/*.so`` torchaudio imports, and all that
prunus uses of it works: resampling and transforms are plain torch. ``pip install --force-reinstall torchaudio``
brings the files back.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

from prunus.service.errors import StartFailed

_ASIDE = ".aside"
_IMPORT_S = 120.0


def repair() -> str:
    """Remove the compiled parts if, and only if, torchaudio cannot load them; returns what was done in one line.

    Raises:
        StartFailed: torchaudio cannot be imported for another reason; nothing was changed.
    """
    spec = importlib.util.find_spec("torchaudio")  # finds the package without running it
    if spec is None or spec.origin is None:
        return "torchaudio is not installed: nothing to repair"
    libraries = sorted((Path(spec.origin).parent / "lib").glob("*.so"))
    return repair_libraries(libraries, (sys.executable, "-c", "import torchaudio"))


def repair_libraries(libraries: list[Path], import_command: tuple[str, ...]) -> str:
    """Do what ``repair`` says for these files.

    Args:
        libraries: The compiled parts.
        import_command: Exits with 0 if the package can be imported; ends its stderr with the exception.
    """
    error = _import_error(import_command)
    if not error:
        return "torchaudio loads: nothing to repair"
    if not libraries or not error.startswith("OSError"):
        raise StartFailed(f"torchaudio cannot be imported ({error}); install torchaudio of torch's release again")
    moved = {library: library.with_name(library.name + _ASIDE) for library in libraries}
    try:
        for library, aside in moved.items():
            library.rename(aside)
        error = _import_error(import_command)
        if not error:
            for aside in moved.values():
                aside.unlink()
    except OSError as problem:
        raise StartFailed(f"{problem}; run it as the owner of this environment") from problem
    finally:
        for library, aside in moved.items():
            if aside.exists():
                aside.rename(library)
    if error:
        raise StartFailed(f"torchaudio cannot be imported without its compiled parts either ({error}); they are back")
    names = ", ".join(library.name for library in libraries)
    return f"torchaudio loads now: removed {names} from {libraries[0].parent}, which need CUDA's libraries"


def _import_error(command: tuple[str, ...]) -> str:
    """Last line of what the import raised; empty if it worked."""
    try:
        run = subprocess.run(  # noqa: S603 - the command is ours
            command, capture_output=True, text=True, timeout=_IMPORT_S, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_IMPORT_S} s"
    if run.returncode == 0:
        return ""
    return (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1][:300]
