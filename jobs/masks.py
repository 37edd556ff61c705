"""Masks as data: packing to 1 bit per weight, and the file format. True keeps.

File: safetensors with one uint8 tensor per weight, ``ceil(n / 8)`` bytes, the flattened row-major mask with the first
element in the lowest bit; shapes and facts in the metadata (strings only):
``{"format": "prunus-mask", "version": "1", "shapes": JSON, "method": ..., "step": ..., "pattern": "unstructured"}``.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from jobs.errors import PruningError

Masks = dict[str, torch.Tensor]
"""Weight name -> bool tensor of the weight's shape."""

FILE_NAME = "mask.safetensors"
_BIT_VALUES = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)


def pack(mask: torch.Tensor) -> torch.Tensor:
    """Pack a bool tensor of n elements into ``ceil(n / 8)`` bytes (uint8, 1-D)."""
    flat = mask.reshape(-1).to(torch.uint8)
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % 8)).view(-1, 8)
    return (padded * _BIT_VALUES.to(padded.device)).sum(1, dtype=torch.uint8)


def unpack(packed: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Inverse of ``pack``; bool of the given shape."""
    numel = int(torch.Size(shape).numel())
    bits = (packed.view(-1, 1) & _BIT_VALUES.to(packed.device)) != 0
    return bits.view(-1)[:numel].view(shape)


def digest(masks: Masks) -> str:
    """SHA-256 over names, shapes and bits in order of name: equal masks, equal digest."""
    total = hashlib.sha256()
    for name in sorted(masks):
        total.update(json.dumps([name, list(masks[name].shape)]).encode())
        total.update(pack(masks[name]).cpu().numpy().tobytes())
    return total.hexdigest()


def save(masks: Masks, directory: Path, *, method: str, step: int) -> Path:
    """Write ``directory/mask.safetensors`` (aside, then renamed); returns its path."""
    directory.mkdir(parents=True, exist_ok=True)
    metadata = {
        "format": "prunus-mask",
        "version": "1",
        "pattern": "unstructured",
        "method": method,
        "step": str(step),
        "shapes": json.dumps({name: list(mask.shape) for name, mask in masks.items()}),
        "digest": digest(masks),
    }
    aside = directory / f".{FILE_NAME}.tmp"
    save_file({name: pack(mask).cpu() for name, mask in masks.items()}, aside, metadata)
    return aside.replace(directory / FILE_NAME)


def load(path: Path) -> Masks:
    """Read a mask file, or the one in a directory.

    Raises:
        PruningError: No mask file, of another format, or damaged.
    """
    file = path / FILE_NAME if path.is_dir() else path
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("format") != "prunus-mask" or metadata.get("version") != "1":
                raise PruningError(f"{file} is not a prunus mask of version 1 (format {metadata.get('format')!r})")
            shapes = json.loads(metadata["shapes"])
            masks = {name: unpack(opened.get_tensor(name), tuple(shape)) for name, shape in shapes.items()}
    except FileNotFoundError as error:
        raise PruningError(f"{file} does not exist; give a job or directory that has a mask") from error
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise PruningError(f"{file} cannot be read as a mask: {error}") from error
    if digest(masks) != metadata.get("digest"):
        raise PruningError(f"{file} is damaged: its bits do not match its digest; fetch it again")
    return masks


def sparsity(masks: Masks) -> float:
    """Share removed over all positions, in [0, 1]; 0 for no masks."""
    total = sum(mask.numel() for mask in masks.values())
    return 1.0 - sum(int(mask.sum()) for mask in masks.values()) / total if total else 0.0
