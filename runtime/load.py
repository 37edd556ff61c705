"""Models out of the compact form, equal to the bit to what the plain one gives.

    model = load_compact(AutoModelForMaskedLM, Path("out"))   # what `prunus fetch --compact` left; writes no file

``configs.artifacts.compact`` reads the file. A function, no quantizer plugged into transformers: that needs a
``quant_method`` in ``config.json``, at which a transformers without the plug-in loads random weights and only logs it.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig, PreTrainedModel

from prunus.configs.artifacts.compact.read import Bits, load_bits
from prunus.configs.errors import ArtifactRefused
from prunus.configs.values.wording import listed

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "BOOL": torch.bool,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
}  # fmt: skip
"""safetensors' name of a dtype -> torch's."""


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a compact checkpoint: name -> tensor, dense, of its own dtype, equal to the bit to the plain one.

    Args:
        path: A compact file, or a directory that holds one, or all of its shards.

    Raises:
        ArtifactError: There is none, a shard is missing, or a file is damaged.
    """
    return {name: _tensor(bits, _DTYPES[dtype]) for name, (dtype, bits) in load_bits(path).items()}


def load_compact(auto_class: Any, directory: Path, **options: Any) -> PreTrainedModel:
    """Load a directory in the compact form as ``auto_class.from_pretrained`` loads the plain one; no file is written.

    Args:
        auto_class: ``AutoModelFor...``, or a model class.
        directory: What ``prunus fetch --compact`` or ``prunus convert --to compact`` wrote.
        options: Passed on to ``from_pretrained``.

    Raises:
        ArtifactError: It cannot be read, or its weights are not exactly those of the class: nothing is left random.
    """
    state = load_state(directory)
    config = options.pop("config", None) or AutoConfig.from_pretrained(directory)
    model, report = _model_class(auto_class, config).from_pretrained(
        None, config=config, state_dict=state, **{**options, "output_loading_info": True}
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(map(str, report[kind])):
            raise ArtifactRefused(
                f"{directory} does not fit {type(model).__name__}: {kind.replace('_', ' ')} {listed(names)}; "
                "load it with the class that it was saved from"
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


def _tensor(bits: Bits, dtype: torch.dtype) -> torch.Tensor:
    """The same memory as a tensor; torch views only signed integers and bytes as anything else."""
    return torch.from_numpy(bits if bits.itemsize == 1 else bits.view(f"i{bits.itemsize}")).view(dtype)
