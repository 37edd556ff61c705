"""DeepSpeed's configuration, from a spec."""

import json
from importlib import resources
from typing import Any

from prunus.configs.specs.job import JobSpec


def deepspeed_config(spec: JobSpec) -> dict[str, Any]:
    """The DeepSpeed settings of a job: ``configs/deepspeed/zeroN.json``, the recipe's own over it, and what follows
    from the spec.
    """
    stage = spec.engine.zero_stage
    assert stage is not None
    text = resources.files("prunus.configs.deepspeed").joinpath(f"zero{stage}.json").read_text(encoding="utf-8")
    settings = _merge(json.loads(text), spec.engine.deepspeed)
    return {
        **settings,
        "train_micro_batch_size_per_gpu": spec.micro_batch_size,
        "gradient_accumulation_steps": spec.accumulation_steps,
        "gradient_clipping": spec.train.max_grad_norm or 0.0,
        "bf16": {"enabled": spec.engine.precision == "bf16" and stage > 0},
        "fp16": {"enabled": spec.engine.precision == "fp16"},
    }


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
