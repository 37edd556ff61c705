"""Let ``import torchaudio`` work beside a CPU build of torch.

torchaudio's PyPI wheel links CUDA libraries, so with a CPU build its import raises OSError (and with it that of
transformers, which imports torchaudio when it is installed). What we use of it (resampling, transforms, SpecAugment
masks) is plain torch: after the failed import its loader of compiled parts is switched off and the import repeated.
"""

import importlib
import importlib.util
import sys


def repair() -> None:
    """Import torchaudio, without its compiled parts where they cannot be loaded; no effect if not installed."""
    if "torchaudio" in sys.modules or importlib.util.find_spec("torchaudio") is None:
        return
    try:
        importlib.import_module("torchaudio")
    except OSError:
        loader = sys.modules["torchaudio._extension.utils"]
        loader._load_lib = lambda _lib: False  # type: ignore[attr-defined]
        importlib.import_module("torchaudio")
