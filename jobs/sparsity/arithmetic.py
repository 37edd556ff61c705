"""Masks as tensors: what is done with them between two steps. True keeps.

On a CPU NumPy works on the same memory, where that is several times as fast as torch (benchmarks/README.md).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from prunus.configs.artifacts import mask_file

Masks = dict[str, torch.Tensor]
"""Weight name -> bool tensor of the weight's shape."""

_PIECE = 1 << 16
"""Elements that are looked at together: what fits a CPU's cache."""
_BIT_VALUES = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)


def pack(mask: torch.Tensor) -> torch.Tensor:
    """Pack a bool tensor of n elements into ``ceil(n / 8)`` bytes (uint8, 1-D), as ``mask_file`` has them."""
    if mask.device.type == "cpu":
        return torch.from_numpy(mask_file.pack(mask.numpy()))
    flat = mask.reshape(-1).to(torch.uint8)
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % 8)).view(-1, 8)
    return (padded * _BIT_VALUES.to(padded.device)).sum(1, dtype=torch.uint8)


def unpack(packed: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Inverse of ``pack``; bool of the given shape."""
    if packed.device.type == "cpu":
        return torch.from_numpy(mask_file.unpack(packed.numpy(), shape))
    numel = int(torch.Size(shape).numel())
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


def sparsity(masks: Masks) -> float:
    """Share removed over all positions, in [0, 1]; 0 for no masks."""
    total = sum(mask.numel() for mask in masks.values())
    return 1.0 - sum(num_kept(mask) for mask in masks.values()) / total if total else 0.0
