"""The file of a mask: its format, written and read with NumPy. True keeps.

File: safetensors with one uint8 tensor per weight, ``ceil(n / 8)`` bytes, the flattened row-major mask with the first
element in the lowest bit; shapes and facts in the metadata (strings only):
``{"format": "prunus-mask", "version": "1", "shapes": JSON, "method": ..., "step": ..., "pattern": ..., "digest": sha256
of names, shapes and bits, "base_sha256": of the prunable weights before the first step, "parents": JSON}``.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from prunus.configs.artifacts.atomic_write import file_aside
from prunus.configs.artifacts.weight_file import num_ones
from prunus.configs.errors import ArtifactMissing, ArtifactRefused, Damaged
from prunus.configs.values.wording import listed

FORMAT = "prunus-mask"
VERSION = "1"
FILE_NAME = "mask.safetensors"
FOLDER = "masks"
"""Of an artifact: holds ``step-N`` for every mask that was saved."""

Bits = NDArray[np.uint8]
"""A mask of n elements in ``ceil(n / 8)`` bytes, 1-D; the bits beyond the last element are 0."""
Shapes = Mapping[str, tuple[int, ...]]
"""Weight name -> shape."""


@dataclass(frozen=True)
class Facts:
    """What a mask file says of its origin.

    Attributes:
        method: Name of the method that chose it.
        step: Optimizer steps done then.
        pattern: As in the recipe.
        base_sha256: Digest of the weights that the job started from; empty if not known.
        parents: Role (model, teacher, mask) -> source, with the digest of its manifest.
    """

    method: str
    step: int
    pattern: str = "unstructured"
    base_sha256: str = ""
    parents: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PackedMask:
    """A mask at 1 bit per weight: 85M weights take 10.6 MB.

    Attributes:
        bits: Weight name -> its bits, in the order of the weights.
        shapes: Weight name -> shape.
        facts: What the file said of itself (method, step, pattern, ...), as text.
    """

    bits: Mapping[str, Bits]
    shapes: Shapes
    facts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, masks: Mapping[str, NDArray[np.bool_]]) -> "PackedMask":
        """Pack a mask."""
        return cls({n: pack(keep) for n, keep in masks.items()}, {n: keep.shape for n, keep in masks.items()})

    def count_kept(self) -> dict[str, int]:
        """How many positions it keeps of each weight."""
        return {name: num_ones(bits) for name, bits in self.bits.items()}

    def digest(self) -> str:
        """SHA-256 over names, shapes and bits in order of name: equal masks, equal digest."""
        total = hashlib.sha256()
        for name in sorted(self.bits):
            total.update(json.dumps([name, list(self.shapes[name])]).encode())
            total.update(self.bits[name].data)
        return total.hexdigest()


def pack(keep: NDArray[np.bool_]) -> Bits:
    """Pack a bool array of n elements into ``ceil(n / 8)`` bytes."""
    return np.packbits(keep.reshape(-1), bitorder="little")


def unpack(bits: Bits, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Inverse of ``pack``; bool of the given shape."""
    return np.unpackbits(bits, count=math.prod(shape), bitorder="little").view(np.bool_).reshape(shape)


def save(mask: PackedMask, directory: Path, facts: Facts) -> Path:
    """Write ``directory/mask.safetensors``, aside and then renamed; returns its path."""
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "pattern": facts.pattern,
        "method": facts.method,
        "step": str(facts.step),
        "base_sha256": facts.base_sha256,
        "parents": json.dumps(dict(facts.parents), sort_keys=True),
        "shapes": json.dumps(mask.shapes),
        "digest": mask.digest(),
    }
    path = directory / FILE_NAME
    with file_aside(path) as aside:
        save_file(dict(mask.bits), aside, metadata)
    return path


def newest(directory: Path) -> Path | None:
    """Directory of the mask with the most steps below an artifact; None if it has none."""
    return newest_step(directory / FOLDER)


def newest_step(folder: Path) -> Path | None:
    """The ``step-N`` of the largest N in a folder that has a mask; None if none has."""
    steps = {
        int(path.parent.name.removeprefix("step-")): path.parent
        for path in folder.glob(f"step-*/{FILE_NAME}")
        if path.parent.name.removeprefix("step-").isdecimal()
    }
    return steps[max(steps)] if steps else None


def load_packed(path: Path) -> PackedMask:
    """Read a mask file, or the one in a directory, and leave it packed.

    Raises:
        ArtifactMissing: There is no such file.
        ArtifactRefused: It is of another format or version.
        Damaged: It is not whole, its bits do not fit its shapes, or differ from its digest.
    """
    file = path / FILE_NAME if path.is_dir() else path
    try:
        with safe_open(file, framework="np") as opened:
            metadata = opened.metadata() or {}
            if (metadata.get("format"), metadata.get("version")) != (FORMAT, VERSION):
                raise ArtifactRefused(
                    f"{file} is not a prunus mask of version {VERSION} (format {metadata.get('format')!r}, version "
                    f"{metadata.get('version')!r})"
                )
            shapes = _shapes(json.loads(metadata["shapes"]))
            if odd := sorted(shapes.keys() ^ set(opened.keys())):
                raise ValueError(f"its shapes and tensors differ in {listed(odd)}")
            bits = {name: opened.get_tensor(name) for name in shapes}
        for name, shape in shapes.items():
            _refuse_misfit(name, bits[name], shape)
    except FileNotFoundError as error:
        raise ArtifactMissing(f"{file} does not exist; give a job or directory that has a mask") from error
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise Damaged(f"{file} cannot be read as a mask: {error}; fetch it again") from error
    mask = PackedMask(bits, shapes, metadata)
    if mask.digest() != metadata.get("digest"):
        raise Damaged(f"{file} is damaged: its bits do not match its digest; fetch it again")
    return mask


def _shapes(written: object) -> dict[str, tuple[int, ...]]:
    """Shapes as a file's metadata say them; ValueError if they are none."""
    if not isinstance(written, dict):
        raise ValueError(f"its shapes are no mapping of names: {written!r:.80}")
    for name, shape in written.items():
        if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"{name} has a shape that is none: {shape!r:.80}")
    return {name: tuple(shape) for name, shape in written.items()}


def _refuse_misfit(name: str, bits: NDArray[Any], shape: tuple[int, ...]) -> None:
    """ValueError if bits are not one for each element of a shape."""
    size = math.prod(shape)
    if bits.dtype != np.uint8:
        raise ValueError(f"{name} is of {bits.dtype}, not of bytes")
    if bits.shape != (-(-size // 8),):
        raise ValueError(f"{name} has {bits.size} bytes, which do not fit its shape {shape}")
    if size % 8 and int(bits[-1]) >> (size % 8):
        raise ValueError(f"{name} has bits beyond its {size} weights")
