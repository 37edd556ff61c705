"""Count the zeros of what was fetched: a checkpoint (one file or shards), a single file, or masks. Needs no torch."""

import json
import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from prunus.configs.artifacts import mask_file
from prunus.configs.artifacts.compact import read as compact
from prunus.configs.artifacts.manifest import MANIFEST, safe_relative, verify
from prunus.configs.artifacts.weight_file import TensorInfo, WeightFile, count_zeros, open_weights
from prunus.configs.artifacts.zeros_report import Layer, Report, total
from prunus.configs.errors import ArtifactMissing, ArtifactRefused, ConfigError, Damaged
from prunus.configs.values.families import Family, guess_prunable, place_in
from prunus.configs.values.family_table import family_of

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_SPARSITY = "sparsity.json"
_CONFIG = "config.json"
_FACTS = ("method", "step", "pattern", "base_sha256", "parents")
"""What is told of a mask."""


def inspect(path: Path) -> Report:
    """Count zeros.

    Args:
        path: A fetched directory, a model or mask directory, or a ``.safetensors`` file.

    Raises:
        ArtifactMissing: There is nothing to count.
        ArtifactRefused: A file of another kind.
        Damaged: A file differs from its manifest, is cut short, or disagrees with ``sparsity.json``.
    """
    if not path.exists():
        raise ArtifactMissing(f"{path} does not exist")
    notes = [_verified(path)] if path.is_dir() else []
    files, directory = _find(path)
    if files[0].metadata.get("format") == mask_file.FORMAT:
        return _mask_report(path, [file.path for file in files], notes)
    return _model_report(path, files, directory, notes)


def _find(path: Path) -> tuple[list[WeightFile], Path]:
    """Open the files that ``path`` stands for, and name the directory they lie in."""
    if path.is_file() and path.suffix != ".safetensors":
        raise ArtifactRefused(f"{path} holds no weights: name a .safetensors file or a directory")
    if path.is_file():
        return [open_weights(path)], path.parent
    for directory in (path, path / "model"):
        if found := compact.compact_files(directory):
            return [open_weights(file) for file in found], directory
        if (directory / _INDEX).is_file():
            return _open_shards(directory), directory
        if (directory / _SINGLE).is_file():
            return [open_weights(directory / _SINGLE)], directory
    masks = mask_file.newest(path) or mask_file.newest_step(path)
    found = sorted((masks or path).glob("*.safetensors"))
    if not found:
        raise ArtifactMissing(f"{path} holds neither {_SINGLE} nor masks; name a directory that `prunus fetch` wrote")
    return [open_weights(file) for file in found], masks or path


def _open_shards(directory: Path) -> list[WeightFile]:
    index = _read_json(directory / _INDEX)
    placed = index.get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise Damaged(f"{directory / _INDEX} has no weight_map; fetch it again")
    files = {}
    for name in sorted(set(map(str, placed.values()))):
        try:
            files[name] = open_weights(directory / safe_relative(name))
        except ConfigError as error:
            raise Damaged(str(error)) from error
    for tensor, name in placed.items():
        if tensor not in files[str(name)].tensors:
            raise Damaged(f"{directory / name} lacks the tensor {tensor!r} that {_INDEX} puts there; fetch it again")
    return list(files.values())


def _verified(directory: Path) -> str:
    if not (directory / MANIFEST).is_file():
        return f"no {MANIFEST} here: nothing was verified"
    try:
        manifest = verify(directory)
    except ConfigError as error:
        raise Damaged(str(error)) from error
    return f"{MANIFEST}: {len(manifest.files)} files verified (job {manifest.job_name}, {manifest.job_id})"


def _model_report(path: Path, files: list[WeightFile], directory: Path, notes: list[str]) -> Report:
    tensors = {info.name: (info, count) for file in files for info, count in _tensors(file)}
    recorded = _recorded(directory / _SPARSITY, {name: info for name, (info, _) in tensors.items()})
    family = _family(directory)
    layers = []
    for name in sorted(tensors, key=_natural):
        info, count = tensors[name]
        counted = name in recorded if recorded is not None else _looks_prunable(info, family)
        layer = Layer(name=name, shape=info.shape, weights=info.num_elements, zeros=count(), counted=counted)
        layers.append(layer)
        if recorded is not None and counted and recorded[name] != layer.zeros:
            raise Damaged(
                f"{name} has {layer.zeros:,} zeros, {_SPARSITY} says {recorded[name]:,}; do not use this model"
            )
    if recorded is None and family is not None:
        notes.append(f"no {_SPARSITY} here: prunable weights are those that a job prunes by default in this model type")
    elif recorded is None:
        notes.append(f"no {_SPARSITY} here: which weights are prunable is a guess from their names and shapes")
    prunable = [layer for layer in layers if layer.counted]
    totals = (total("prunable weights", prunable, len(layers)), total("all weights", layers, len(layers)))
    return Report(path=str(path), kind="model", layers=tuple(layers), totals=totals, notes=tuple(notes))


def _tensors(file: WeightFile) -> Iterator[tuple[TensorInfo, Callable[[], int]]]:
    """Each tensor of a file in either form, with what counts its zeros."""
    if compact.is_compact(file):
        opened = compact.open_compact(file.path)
        for info in opened.plain.values():
            yield info, partial(compact.count_plain_zeros, opened, info.name)
    else:
        for info in file.tensors.values():
            yield info, partial(count_zeros, file, info.name)


def _recorded(path: Path, tensors: dict[str, TensorInfo]) -> dict[str, int] | None:
    """Zeros by prunable weight, as the job that wrote the model recorded them; None without a record."""
    if not path.is_file():
        return None
    try:
        entries = {str(name): entry for name, entry in _read_json(path)["prunable"].items()}
        for name, entry in entries.items():
            if name not in tensors or tensors[name].shape != tuple(entry["shape"]):
                raise Damaged(f"{path} speaks of {name} {entry['shape']}, which the model does not have")
        return {name: int(entry["zeros"]) for name, entry in entries.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Damaged(f"{path} cannot be read: {error!r}; fetch it again") from error


def _family(directory: Path) -> Family | None:
    """Entry of the table for the model in a directory; None without a configuration or an entry."""
    if not (directory / _CONFIG).is_file():
        return None
    return family_of(str(_read_json(directory / _CONFIG).get("model_type")))


def _looks_prunable(info: TensorInfo, family: Family | None) -> bool:
    if info.dtype[0] not in "BF":
        return False
    if family is not None:
        return place_in(family, info.name) is not None
    return guess_prunable(info.name, info.shape)


def _mask_report(path: Path, files: list[Path], notes: list[str]) -> Report:
    layers = []
    for file in files:
        mask = mask_file.load_packed(file)
        kept = mask.count_kept()
        for name, shape in mask.shapes.items():
            weights = math.prod(shape)
            layers.append(Layer(name=name, shape=shape, weights=weights, zeros=weights - kept[name], counted=True))
        told = [f"{key} {mask.facts[key]}" for key in _FACTS if mask.facts.get(key)]
        notes.append(f"{file.name}: {', '.join(told)}")
    layers.sort(key=lambda layer: _natural(layer.name))
    totals = (total("masked weights", layers, len(layers)),)
    return Report(path=str(path), kind="mask", layers=tuple(layers), totals=totals, notes=tuple(notes))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Damaged(f"{path} cannot be read: {error}; fetch it again") from error
    if not isinstance(value, dict):
        raise Damaged(f"{path} is not a JSON object; fetch it again")
    return value


def _natural(name: str) -> list[tuple[int, str]]:
    """Order in which layer 2 comes before layer 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
