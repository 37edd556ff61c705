"""Which weights of a model may be pruned, by name."""

import logging
import re
from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel

from prunus.configs.values.prunable import Prunable
from prunus.jobs.errors import PruningError
from prunus.jobs.models.anatomy import Anatomy, anatomy_of, unreached

log = logging.getLogger(__name__)


def prunable_parameters(model: PreTrainedModel, rule: Prunable) -> dict[str, nn.Parameter]:
    """Every linear map of the model's anatomy that the rule takes (with biases: each behind its weight), in the model's
    order.

    Heads, pooler, embeddings, LayerNorm, biases and convolutional feature extractors are never among them.

    Raises:
        PruningError: Nothing is left, or a pattern matches nothing; names what exists.
    """
    anatomy = anatomy_of(model)
    names = set(anatomy.prunable)
    if rule.biases:
        names |= set(anatomy.biases.values())
    found = {name: weight for name, weight in model.named_parameters() if name in names}
    if not found:
        raise PruningError(
            f"{type(model).__name__} has no linear layer inside its encoder: nothing can be pruned; its matrices are "
            f"{_kinds(model)}, and prunus prunes nn.Linear: use a model of another family"
        )
    if anatomy.family is None:
        _say_generic(model, anatomy)
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


def _say_generic(model: PreTrainedModel, anatomy: Anatomy) -> None:
    """One line: what the generic rule takes, what it cannot reach, and how to teach prunus the family."""
    parameters = dict(model.named_parameters())
    taken = sum(parameters[name].numel() for name in anatomy.prunable)
    left = unreached(model, anatomy)
    num_left = sum(weight.numel() for weight in left.values())
    share = f"{100 * num_left / (taken + num_left):.0f}% of the weights in its matrices: {folded(left) or 'none'}"
    log.warning(
        "model type %s is not in the table of families: its linear layers are pruned (%s), heads and units unknown; "
        "not pruned: %s. To teach prunus its parts, add an entry to prunus/configs/values/family_table.py",
        anatomy.model_type,
        folded(anatomy.prunable),
        share,
    )


def _kinds(model: PreTrainedModel) -> str:
    """Kinds of modules that hold matrices and no embeddings."""
    kinds = {
        type(module).__name__
        for module in model.base_model.modules()
        if not isinstance(module, nn.Embedding | nn.Linear)
        and any(weight.dim() > 1 for weight in module.parameters(recurse=False))
    }
    return ", ".join(sorted(kinds)) or "none"
