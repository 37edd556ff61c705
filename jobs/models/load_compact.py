"""The compact form with torch: packed beside the plain one when a job ends, and read again, to the bit.

    model = load_compact(AutoModelForMaskedLM, Path("out"))   # what `prunus fetch --compact` left; writes no file

``compact.layout`` draws the layout; ``compact.codec`` is the same without torch. A function, no quantizer plugged
into transformers: that needs a ``quant_method`` in ``config.json``, at which a transformers without the plug-in loads
random weights and only logs it.
"""

import copy
import json
import logging
import shutil
import struct
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import zstandard
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, GenerationConfig, PreTrainedModel

from prunus.configs.artifacts.compact.layout import (
    FORMAT,
    HEADER,
    PACKED,
    PARTS,
    VERSION,
    Part,
    compact_name,
    file_head,
    in_order,
    is_compact_name,
    is_plain_name,
    may_shrink,
    missing_shard,
    sparse_parts,
)
from prunus.configs.artifacts.manifest import sha256_file
from prunus.jobs.errors import ModelError
from prunus.jobs.sparsity import masks

log = logging.getLogger(__name__)

_LEVEL = 3
"""Of zstd: the higher ones gain a few percent and take many times as long."""
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of an element -> the dtype that its bits are viewed as."""


@dataclass(frozen=True)
class _Layout:
    """What the compact form of one file will hold.

    Attributes:
        header: Of the plain file, its JSON text.
        names: Tensors of the plain file.
        parts: Tensors of the compact file, in order.
    """

    header: str
    names: Collection[str]
    parts: list[Part]

    @property
    def is_sparse(self) -> bool:
        return any(part.name not in self.names for part in self.parts)


def pack(model: Path, folder: Path) -> int:
    """Write the compact form of every file of weights in ``model``, packed; one tensor at a time is in memory.

    Returns:
        Its bytes; 0, and no ``folder``, if no matrix is sparse enough to shrink, or the whole is not smaller.
    """
    began = time.monotonic()
    layouts = {file: _layout(file) for file in sorted(model.iterdir()) if is_plain_name(file.name)}
    if not any(layout.is_sparse for layout in layouts.values()):
        log.info("no compact form: no matrix of %s is sparse enough to shrink", model)
        return 0
    folder.mkdir(parents=True)
    after = sum(_pack(file, layouts[file], folder / f"{compact_name(file.name)}{PACKED}") for file in layouts)
    before = sum(file.stat().st_size for file in layouts)
    log.info("compact form: %d -> %d bytes in %.1f s", before, after, time.monotonic() - began)
    if after < before:
        return after
    log.info("no compact form: it would not be smaller")
    shutil.rmtree(folder)
    return 0


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a compact checkpoint: name -> tensor, dense, of its own dtype, equal to the bit to the plain one.

    Args:
        path: A compact file, or a directory that holds one, or all of its shards.

    Raises:
        ModelError: There is none, a shard is missing, or a file is damaged.
    """
    files = sorted(file for file in path.iterdir() if is_compact_name(file.name)) if path.is_dir() else [path]
    if not files:
        raise ModelError(f"{path} holds no compact checkpoint; bring one with `prunus fetch --compact`")
    if path.is_dir() and (missing := missing_shard([file.name for file in files])):
        raise ModelError(f"{path} lacks the shard {missing}; fetch it again")
    state: dict[str, torch.Tensor] = {}
    for file in files:
        found = _read(file)
        if twice := state.keys() & found.keys():
            raise ModelError(f"{path} has {min(twice)} in two files; fetch it again")
        state |= found
    return state


def load_compact(auto_class: Any, directory: Path, **options: Any) -> PreTrainedModel:
    """Load a directory in the compact form as ``auto_class.from_pretrained`` loads the plain one; no file is written.

    Args:
        auto_class: ``AutoModelFor...``, or a model class.
        directory: What ``prunus fetch --compact`` or ``prunus convert --to compact`` wrote.
        options: Passed on to ``from_pretrained``.

    Raises:
        ModelError: It cannot be read, or its weights are not exactly those of the class: nothing is left random.
    """
    state = load_state(directory)
    config = options.pop("config", None) or AutoConfig.from_pretrained(directory)
    model, report = _model_class(auto_class, config).from_pretrained(
        None, config=config, state_dict=state, **{**options, "output_loading_info": True}
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(map(str, report[kind])):
            raise ModelError(
                f"{directory} does not fit {type(model).__name__}: {kind.replace('_', ' ')} {', '.join(names[:3])} "
                f"({len(names)} in all); load it with the class that it was saved from"
            )
    model.name_or_path = model.config.name_or_path = str(directory)
    if model.can_generate() and (directory / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(directory)
    return model


def _model_class(auto_class: Any, config: Any) -> Any:
    """What an Auto class stands for; itself takes no state dict. Said by a model without memory."""
    if issubclass(auto_class, PreTrainedModel):
        return auto_class
    with torch.device("meta"):
        return type(auto_class.from_config(copy.deepcopy(config)))


def _layout(plain: Path) -> _Layout:
    with plain.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = file.read(length).decode()
    entries = json.loads(header)
    entries.pop("__metadata__", None)
    parts: list[Part] = []
    with safe_open(plain, framework="pt") as opened:
        for name, entry in entries.items():
            dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            shrunk: list[Part] = []
            if may_shrink(name, shape, entries):
                num_nonzero = int(torch.count_nonzero(_bits(opened.get_tensor(name))))
                shrunk = sparse_parts(name, dtype, shape, num_nonzero)
            parts += shrunk or [Part(name, dtype, shape, end - begin)]
    return _Layout(header, entries.keys(), in_order(parts))


def _pack(plain: Path, layout: _Layout, packed: Path) -> int:
    """Write one file; returns its bytes."""
    head = file_head(layout.parts, layout.header, sha256_file(plain))
    size = len(head) + sum(part.num_bytes for part in layout.parts)
    packer = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    with (
        safe_open(plain, framework="pt") as opened,
        packed.open("wb") as out,
        packer.stream_writer(out, size=size, closefd=False) as stream,
    ):
        stream.write(head)
        for part in layout.parts:
            data = opened.get_tensor(part.name) if part.name in layout.names else _part(opened, part.name)
            stream.write(data.reshape(-1).view(torch.uint8).numpy().data)
    return packed.stat().st_size


def _part(opened: Any, name: str) -> torch.Tensor:
    """One of the four tensors of a matrix."""
    module, _, kind = name.rpartition(".")
    bits_RC = _bits(opened.get_tensor(f"{module}.weight"))
    kept_RC = bits_RC != 0
    if kind == "shape":
        return torch.tensor(bits_RC.shape, dtype=torch.int64)
    if kind == "compressed":
        return bits_RC[kept_RC]
    if kind == "bitmask":  # each row begins with a byte of its own
        return masks.pack(torch.nn.functional.pad(kept_RC, (0, -kept_RC.shape[1] % 8)))
    counts_R = kept_RC.sum(1)
    return counts_R.cumsum(0) - counts_R


def _read(file: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            facts = opened.metadata() or {}
            if (facts.get("format"), facts.get("version")) != (FORMAT, VERSION):
                raise ModelError(
                    f"{file} is no compact checkpoint of version {VERSION}; a newer one needs a newer prunus"
                )
            entries = json.loads(facts[HEADER])
            entries.pop("__metadata__", None)
            stored = set(opened.keys())
            state = {
                name: opened.get_tensor(name) if name in stored else _dense(opened, name, tuple(entry["shape"]))
                for name, entry in entries.items()
            }
            modules = {name.removesuffix(".weight") for name in entries.keys() - stored}
            if extra := stored - entries.keys() - {f"{module}.{part}" for module in modules for part in PARTS}:
                raise ValueError(f"{min(extra)} belongs to no tensor")
            return state
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ModelError(f"{file} is damaged or no compact checkpoint ({error}); fetch it again") from error


def _dense(opened: Any, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A matrix out of its four tensors.

    Raises:
        ValueError: They do not fit together.
    """
    rows, columns = shape
    packed_RB, values, told, begins_R = (
        opened.get_tensor(f"{name.removesuffix('.weight')}.{part}")
        for part in ("bitmask", "compressed", "shape", "row_offsets")
    )
    width = -(-columns // 8)
    fits = packed_RB.shape == (rows, width) and told.tolist() == [rows, columns]
    if fits:
        kept_RC = masks.unpack(packed_RB.reshape(-1), (rows, 8 * width))[:, :columns]
        counts_R = kept_RC.sum(1)
        fits = values.numel() == int(counts_R.sum()) and torch.equal(begins_R, counts_R.cumsum(0) - counts_R)
    if not fits:
        raise ValueError(f"the parts of {name} do not fit together")
    dense_RC = torch.zeros(shape, dtype=values.dtype)
    _bits(dense_RC)[kept_RC] = _bits(values)
    return dense_RC


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The elements as integers, so that -0.0 and NaN are told from 0 and copied as they are."""
    return tensor.view(_BITS[tensor.element_size()])
