"""Masks of tensors to and from the file of ``configs.artifacts.mask_file``; on a CPU without copies of the bits."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from prunus.configs.artifacts import mask_file
from prunus.configs.artifacts.mask_file import Facts, PackedMask
from prunus.configs.errors import ArtifactError
from prunus.jobs.errors import PruningError
from prunus.jobs.sparsity.arithmetic import Masks, pack


def packed(masks: Masks) -> PackedMask:
    """Pack a mask; what lies on an accelerator is packed there."""
    bits = {name: pack(mask).cpu().numpy() for name, mask in masks.items()}
    return PackedMask(bits, {name: tuple(mask.shape) for name, mask in masks.items()})


def digest(masks: Masks) -> str:
    """SHA-256 over names, shapes and bits in order of name: equal masks, equal digest."""
    return packed(masks).digest()


def save(masks: Masks, directory: Path, facts: Facts) -> Path:
    """Write ``directory/mask.safetensors``; returns its path."""
    return mask_file.save(packed(masks), directory, facts)


def load(path: Path) -> Masks:
    """Read a mask file, or the one in a directory.

    Raises:
        PruningError: No mask file, of another format, or damaged.
    """
    try:
        found = mask_file.load_packed(path)
    except ArtifactError as error:
        raise PruningError(str(error)) from error
    return {name: torch.from_numpy(mask_file.unpack(bits, found.shapes[name])) for name, bits in found.bits.items()}


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes and fp32 values in order of name."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(json.dumps([name, list(weights[name].shape)]).encode())
        total.update(weights[name].detach().float().cpu().contiguous().numpy().data)
    return total.hexdigest()
