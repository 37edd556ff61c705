"""Which weights of a model may be pruned, by name."""

import re
from collections.abc import Iterable
from typing import cast

from torch import nn
from transformers import PreTrainedModel

from prunus.configs.values.prunable import Prunable
from prunus.jobs.errors import PruningError

_NOT_IN_ENCODER = re.compile(
    r"(^|\.)(pooler|embeddings?(_\w+)?|feature_projection|feature_extractor|gru_rel_pos_linear)(\.|$)"
)


_MAPS_WITHOUT_LINEAR = {"XLNetRelativeAttention": ("q", "k", "v", "o", "r")}
"""Linear maps that a module of transformers keeps as bare parameters: (hidden, heads, head size)."""


def prunable_parameters(model: PreTrainedModel, rule: Prunable) -> dict[str, nn.Parameter]:
    """Every ``nn.Linear.weight`` inside the encoder that the rule takes (with biases: each behind its weight), in the
    model's order.

    Heads, pooler, embeddings, LayerNorm, biases and convolutional feature extractors are never among them.

    Raises:
        PruningError: Nothing is left, or a pattern matches nothing; names what exists.
    """
    prefix = model.base_model_prefix if model.base_model is not model else ""
    found = {
        f"{name}.{kind}": cast(nn.Parameter, value)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and (not prefix or name.startswith(f"{prefix}."))
        and not _NOT_IN_ENCODER.search(name)
        for kind, value in (("weight", module.weight), ("bias", module.bias if rule.biases else None))
        if value is not None
    } | {
        f"{name}.{key}": cast(nn.Parameter, getattr(module, key))
        for name, module in model.named_modules()
        for key in _MAPS_WITHOUT_LINEAR.get(type(module).__name__, ())
    }
    order = {name: place for place, (name, _) in enumerate(model.named_parameters())}
    found = dict(sorted(found.items(), key=lambda item: order[item[0]]))
    if not found:
        raise PruningError(f"{type(model).__name__} has no linear layer inside its encoder: nothing can be pruned")
    for field in ("include", "exclude"):
        for pattern in getattr(rule, field):
            if not any(re.search(pattern, name) for name in found):
                raise PruningError(
                    f"method.prunable.{field}: {pattern!r} matches no weight; there are {len(found)}: {folded(found)}"
                )
    chosen = {
        name: weight
        for name, weight in found.items()
        if any(re.search(p, name) for p in rule.include) and not any(re.search(p, name) for p in rule.exclude)
    }
    if not chosen:
        raise PruningError(f"method.prunable leaves no weight to prune; there are {len(found)}: {folded(found)}")
    return chosen


def folded(names: Iterable[str]) -> str:
    """All names with their layer numbers folded, so that the list stays short."""
    return ", ".join(dict.fromkeys(re.sub(r"\.\d+\.", ".N.", name) for name in names))
