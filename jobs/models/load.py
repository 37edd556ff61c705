"""Load a model's weights; refuse those that would be random."""

import logging
import re
from collections.abc import Iterable
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    PreTrainedModel,
)

from prunus.configs.specs.model import ModelSpec
from prunus.configs.values.wording import listed
from prunus.jobs.errors import ModelError
from prunus.jobs.models.sources import Origin, first_line

log = logging.getLogger(__name__)

_MAY_BE_NEW = re.compile(r"\.pooler\.|\.masked_spec_embed$")
"""Parts of an encoder that a checkpoint may lack: each task makes its own."""


def load_model(auto_class: Any, origin: Origin, spec: ModelSpec | None, overrides: dict[str, Any]) -> PreTrainedModel:
    """Load weights (fp32), or build them at random, with configuration overrides.

    Args:
        auto_class: ``AutoModelFor...`` of the task.
        spec: Model part of the job's spec; None for a teacher.
        overrides: The task's own configuration (labels).

    Raises:
        ModelError: No model there, an unknown override, damaged weights.
    """
    try:
        config = AutoConfig.from_pretrained(origin.location)
        for key, value in (spec.config if spec else {}).items():
            if not hasattr(config, key):
                raise ModelError(
                    f"model.config.{key}: {type(config).__name__} has no such setting; look at its documentation"
                )
            setattr(config, key, value)
        for key, value in overrides.items():
            setattr(config, key, value)
        if spec is not None and spec.init == "random":
            return auto_class.from_config(config, dtype=torch.float32)
        new_head = spec is not None and spec.head == "new"
        model, report = auto_class.from_pretrained(
            origin.location,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=new_head,
        )
        _refuse_random_weights(model, set(report["missing_keys"]), origin.reference, head_too=spec is None)
        return _with_new_head(auto_class, model, origin.reference, report["mismatched_keys"]) if new_head else model
    except SafetensorError as error:
        raise ModelError(
            f"{origin.reference}: its weights are damaged ({first_line(error)}); fetch or make it again"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        advice = "; if only the head is another one: model: {head: new}" if "mismatched_sizes" in str(error) else ""
        raise ModelError(
            f"{origin.reference}: no model for this task can be loaded from it: {first_line(error)}{advice}"
        ) from error


def _with_new_head(auto_class: Any, model: PreTrainedModel, reference: str, mismatched: Iterable[Any]) -> Any:
    """The same encoder under a random head, however well the old one would fit."""
    wrong = [str(key[0] if isinstance(key, tuple) else key) for key in mismatched]
    if inside := [name for name in wrong if name.startswith(f"{model.base_model_prefix}.")]:
        raise ModelError(f"{reference}: {inside[0]} has another size than the configuration says; drop model.config")
    fresh = auto_class.from_config(model.config, dtype=torch.float32)
    fresh.base_model.load_state_dict(model.base_model.state_dict())
    return fresh


def _refuse_random_weights(model: PreTrainedModel, missing: set[str], reference: str, *, head_too: bool) -> None:
    """Refuse what transformers only logs: a checkpoint's missing weights are filled with random numbers.

    A new head or pooler is meant, a new encoder (with its embeddings) or teacher is not.
    """
    prefix = f"{model.base_model_prefix}." if model.base_model is not model else ""
    wrong = sorted(m for m in missing if head_too or (m.startswith(prefix) and not _MAY_BE_NEW.search(m)))
    if wrong:
        raise ModelError(
            f"{reference} lacks {len(wrong)} weights that {type(model).__name__} needs ({listed(wrong)}); they "
            "would be random: "
            f"{'use a teacher trained for this task' if head_too else 'use a checkpoint of this architecture'}"
        )
