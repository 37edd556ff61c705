"""Plain safetensors written by hand; what the tests of the compact form share."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES = {"F32": np.uint32, "F16": np.uint16, "BF16": np.uint16, "F64": np.uint64, "F8_E4M3": np.uint8}


def write_plain(path: Path, tensors: dict[str, tuple[str, NDArray[Any]]]) -> Path:
    """A safetensors file written by hand from (dtype, bits)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, bits) in tensors.items():
        header[name] = {"dtype": dtype, "shape": bits.shape, "data_offsets": [offset, offset + bits.nbytes]}
        offset += bits.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(bits.tobytes() for _, bits in tensors.values()))
    return path


def sparse_bits(dtype: str, shape: tuple[int, ...], share: float, seed: int = 0) -> tuple[str, NDArray[Any]]:
    """Random elements, about a share of which are exactly zero."""
    draw = np.random.default_rng(seed)
    kind = DTYPES[dtype]
    bits = draw.integers(0, np.iinfo(kind).max, shape, dtype=kind, endpoint=True)
    return dtype, np.where(draw.random(shape) < share, 0, bits).astype(kind)
