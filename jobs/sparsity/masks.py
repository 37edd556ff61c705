"""Masks as data: packing to 1 bit per weight, and the file format. True keeps.

File: safetensors with one uint8 tensor per weight, ``ceil(n / 8)`` bytes, the flattened row-major mask with the first
element in the lowest bit; shapes and facts in the metadata (strings only):
``{"format": "prunus-mask", "version": "1", "shapes": JSON, "method": ..., "step": ..., "pattern": ..., "digest": sha256
of names, shapes and bits, "base_sha256": of the prunable weights before the first step, "parents": JSON}``.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from prunus.jobs.errors import PruningError

Masks = dict[str, torch.Tensor]
"""Weight name -> bool tensor of the weight's shape."""

FILE_NAME = "mask.safetensors"
FOLDER = "masks"
"""Of an artifact: holds ``step-N`` for every mask that was saved."""
_PIECE = 1 << 16
"""Elements that are looked at together: what fits a CPU's cache."""
_BIT_VALUES = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)


@dataclass(frozen=True)
class Facts:
    """What a mask file says of its origin.

    Attributes:
        method: Name of the method that chose it.
        step: Optimizer steps done then.
        pattern: As in the recipe.
        base_sha256: :func:`weights_digest` of the weights that the job started from; empty if not known.
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
        bits: Weight name -> uint8, 1-D, as :func:`pack` makes them; the bits beyond the last weight are 0.
        shapes: Weight name -> shape.
        facts: What the file said of itself (method, step, pattern, ...), as text.
    """

    bits: Masks
    shapes: Mapping[str, tuple[int, ...]]
    facts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, masks: Masks) -> "PackedMask":
        """Pack a mask."""
        return cls({n: pack(mask).cpu() for n, mask in masks.items()}, {n: tuple(m.shape) for n, m in masks.items()})


def pack(mask: torch.Tensor) -> torch.Tensor:
    """Pack a bool tensor of n elements into ``ceil(n / 8)`` bytes (uint8, 1-D)."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.packbits(mask.numpy().reshape(-1), bitorder="little"))
    flat = mask.reshape(-1).to(torch.uint8)
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % 8)).view(-1, 8)
    return (padded * _BIT_VALUES.to(padded.device)).sum(1, dtype=torch.uint8)


def unpack(packed: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Inverse of ``pack``; bool of the given shape."""
    numel = int(torch.Size(shape).numel())
    if packed.device.type == "cpu":
        bits_N = np.unpackbits(packed.numpy(), count=numel, bitorder="little")
        return torch.from_numpy(bits_N.view(np.bool_)).view(shape)
    bits = (packed.view(-1, 1) & _BIT_VALUES.to(packed.device)) != 0
    return bits.view(-1)[:numel].view(shape)


def num_kept(mask: torch.Tensor) -> int:
    """How many positions a mask keeps."""
    # On a CPU NumPy counts bools 4 times as fast as torch (benchmarks/README.md).
    return int(np.count_nonzero(mask.numpy())) if mask.device.type == "cpu" else int(torch.count_nonzero(mask))


def replace(mask: torch.Tensor, new: torch.Tensor) -> tuple[int, int]:
    """Overwrite a mask in place by another of its shape; returns how many positions the new one and both keep."""
    if mask.device.type != "cpu":
        both = int(torch.count_nonzero(mask & new))
        return num_kept(mask.copy_(new)), both
    old_L, new_L, kept, both = mask.numpy().reshape(-1), new.numpy().reshape(-1), 0, 0
    for piece in _pieces(old_L.size):
        kept += int(np.count_nonzero(new_L[piece]))
        both += int(np.count_nonzero(np.logical_and(old_L[piece], new_L[piece], out=old_L[piece])))
        old_L[piece] = new_L[piece]
    return kept, both


def clear(places: Sequence[torch.Tensor], keep_L: torch.Tensor, hidden_L: torch.Tensor | None = None) -> None:
    """Make values zero outside a mask, whatever they were (NaN too), in place.

    Args:
        places: Each shaped like the mask, 1-D; the first are the weights.
        hidden_L: Values of removed weights, 0 elsewhere. A weight that returns takes its value from there, and one that
            goes leaves it there.
    """
    if any(values_L.device.type != "cpu" or values_L.dtype != torch.float32 for values_L in places):
        gone_L = ~keep_L
        if hidden_L is not None:
            places[0].add_(hidden_L)
            hidden_L.copy_(places[0]).masked_fill_(keep_L, 0.0)
        for values_L in places:
            values_L.masked_fill_(gone_L, 0.0)
        return
    keep, values = keep_L.numpy().view(np.int8), [values_L.detach().numpy() for values_L in places]
    hidden = None if hidden_L is None else hidden_L.numpy()
    all_P, both_P = np.empty(min(_PIECE, keep.size), np.int32), np.empty(min(_PIECE, keep.size), np.float32)
    for piece in _pieces(keep.size):
        # All bits or none, made once for all places: half the work of multiplying each by bools.
        bits_P = all_P[: keep[piece].size]
        np.copyto(bits_P, np.negative(keep[piece]))
        if hidden is not None:
            either_P = np.add(values[0][piece], hidden[piece], out=both_P[: bits_P.size])
            np.bitwise_and(either_P.view(np.int32), bits_P, out=values[0][piece].view(np.int32))
            np.bitwise_xor(either_P.view(np.int32), values[0][piece].view(np.int32), out=hidden[piece].view(np.int32))
        for whole in values if hidden is None else values[1:]:
            np.bitwise_and(whole[piece].view(np.int32), bits_P, out=whole[piece].view(np.int32))


def hold(values_L: torch.Tensor, keep_L: torch.Tensor) -> None:
    """Multiply values by a mask, in place; both of one shape."""
    if values_L.device.type == "cpu" and values_L.dtype == torch.float32:
        # torch converts the whole mask to floats first: 10 times as slow (benchmarks/README.md).
        values = values_L.detach().numpy()
        np.multiply(values, keep_L.numpy(), out=values)
    else:
        values_L.mul_(keep_L)


def held(values_L: torch.Tensor, keep_L: torch.Tensor) -> torch.Tensor:
    """The values, zero outside a mask, as a new tensor; see :func:`hold`."""
    if values_L.device.type == "cpu" and values_L.dtype == torch.float32:
        return torch.from_numpy(np.multiply(values_L.detach().numpy(), keep_L.numpy()))
    return values_L * keep_L


def count_outside(values_L: torch.Tensor, keep_L: torch.Tensor) -> int:
    """How many values outside a mask are not zero; both 1-D."""
    if values_L.device.type != "cpu":
        return int(torch.count_nonzero((values_L != 0).logical_and_(~keep_L)))
    keep = keep_L.numpy()
    if values_L.dtype == torch.float32:
        values = values_L.detach().numpy()
        return sum(int(np.count_nonzero(np.not_equal(values[p], 0) > keep[p])) for p in _pieces(keep.size))
    bits = values_L.detach().contiguous().view(torch.int16).numpy()  # bf16 or fp16; NumPy does not know the first
    return sum(int(np.count_nonzero(((bits[p] & 0x7FFF) != 0) > keep[p])) for p in _pieces(keep.size))


def _pieces(size: int) -> Iterator[slice]:
    return (slice(begin, begin + _PIECE) for begin in range(0, size, _PIECE))


def digest(masks: Masks) -> str:
    """SHA-256 over names, shapes and bits in order of name: equal masks, equal digest."""
    packed = PackedMask.of(masks)
    return _digest(packed.bits, packed.shapes)


def _digest(packed: Masks, shapes: Mapping[str, tuple[int, ...]]) -> str:
    total = hashlib.sha256()
    for name in sorted(packed):
        total.update(json.dumps([name, list(shapes[name])]).encode())
        total.update(packed[name].cpu().numpy().data)
    return total.hexdigest()


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes and fp32 values in order of name."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(json.dumps([name, list(weights[name].shape)]).encode())
        total.update(weights[name].detach().float().cpu().contiguous().numpy().data)
    return total.hexdigest()


def save(masks: Masks, directory: Path, facts: Facts) -> Path:
    """Write ``directory/mask.safetensors`` (aside, then renamed); returns its path."""
    packed = PackedMask.of(masks)
    directory.mkdir(parents=True, exist_ok=True)
    metadata = {
        "format": "prunus-mask",
        "version": "1",
        "pattern": facts.pattern,
        "method": facts.method,
        "step": str(facts.step),
        "base_sha256": facts.base_sha256,
        "parents": json.dumps(dict(facts.parents), sort_keys=True),
        "shapes": json.dumps(packed.shapes),
        "digest": _digest(packed.bits, packed.shapes),
    }
    aside = directory / f".{FILE_NAME}.tmp"
    save_file(packed.bits, aside, metadata)
    return aside.replace(directory / FILE_NAME)


def newest(directory: Path) -> Path | None:
    """Directory of the mask with the most steps below an artifact; None if it has none."""
    steps = {
        int(path.parent.name.removeprefix("step-")): path.parent
        for path in directory.glob(f"{FOLDER}/step-*/{FILE_NAME}")
        if path.parent.name.removeprefix("step-").isdigit()
    }
    return steps[max(steps)] if steps else None


def load(path: Path) -> Masks:
    """Read a mask file, or the one in a directory.

    Raises:
        PruningError: No mask file, of another format, or damaged.
    """
    packed = load_packed(path)
    return {name: unpack(bits, packed.shapes[name]) for name, bits in packed.bits.items()}


def load_packed(path: Path) -> PackedMask:
    """Read a mask file, or the one in a directory, and leave it packed.

    Raises:
        PruningError: As in :func:`load`.
    """
    file = path / FILE_NAME if path.is_dir() else path
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("format") != "prunus-mask" or metadata.get("version") != "1":
                raise PruningError(f"{file} is not a prunus mask of version 1 (format {metadata.get('format')!r})")
            shapes = _shapes(json.loads(metadata["shapes"]))
            packed = {name: opened.get_tensor(name) for name in shapes}
        for name, shape in shapes.items():
            if packed[name].dtype != torch.uint8:
                raise ValueError(f"{name} is of {packed[name].dtype}, not of bytes")
            if packed[name].shape != (-(-math.prod(shape) // 8),):
                raise ValueError(f"{name} has {packed[name].numel()} bytes, which do not fit its shape {shape}")
            if math.prod(shape) % 8 and int(packed[name][-1]) >> (math.prod(shape) % 8):
                raise ValueError(f"{name} has bits beyond its {math.prod(shape)} weights")
        if _digest(packed, shapes) != metadata.get("digest"):
            raise PruningError(f"{file} is damaged: its bits do not match its digest; fetch it again")
        return PackedMask(packed, shapes, metadata)
    except FileNotFoundError as error:
        raise PruningError(f"{file} does not exist; give a job or directory that has a mask") from error
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise PruningError(f"{file} cannot be read as a mask: {error}") from error


def _shapes(written: object) -> dict[str, tuple[int, ...]]:
    """Shapes as a file's metadata say them; ValueError if they are none."""
    if not isinstance(written, dict):
        raise ValueError(f"its shapes are no mapping of names: {written!r:.80}")
    for name, shape in written.items():
        if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"{name} has a shape that is none: {shape!r:.80}")
    return {name: tuple(shape) for name, shape in written.items()}


def sparsity(masks: Masks) -> float:
    """Share removed over all positions, in [0, 1]; 0 for no masks."""
    total = sum(mask.numel() for mask in masks.values())
    return 1.0 - sum(num_kept(mask) for mask in masks.values()) / total if total else 0.0
