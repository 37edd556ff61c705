"""The parts of a model by the table of families: layers, heads, feed-forward units, norms, embeddings.

    found = anatomy_of(model)
    for layer in found.layers:
        weight = parameters[layer.v.weight]
        weight[layer.v.part(head_group, found.num_kv_heads)] = 0

Heads lie side by side: head h owns rows [h x head size, (h + 1) x head size) of q and the same columns of o. With
grouped queries, key-value head g serves the heads [g x heads / groups, (g + 1) x heads / groups), and a head cannot go
without the others of its group. A family that the table does not have gets the generic rule: the linear layers of its
base model may be pruned, nothing else is known.
"""

from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from prunus.configs.values.families import Family, Role, is_layer, outside_encoder
from prunus.configs.values.family_table import family_of


@dataclass(frozen=True)
class Map:
    """A linear map of a model.

    Attributes:
        weight: Full name of its parameter.
        bias: Full name of its bias; None if it has none.
        shape: Of the weight.
        axis: Dimension of the weight along which heads or units lie.
        parts_bias: Whether the bias lies along heads or units too (outputs), or not (o and down: it belongs to all).
    """

    weight: str
    bias: str | None
    shape: tuple[int, ...]
    axis: int
    parts_bias: bool

    def part(self, index: int, count: int) -> tuple[slice, ...]:
        """Index of a head or unit in the weight, where the weight has ``count`` of them."""
        size = self.shape[self.axis] // count
        before = (slice(None),) * self.axis
        return (*before, slice(index * size, (index + 1) * size))


@dataclass(frozen=True)
class Layer:
    """A layer of the model; maps as in the table of families.

    Attributes:
        path: Full path.
        q, k, v, o: Self-attention.
        up, down: Feed-forward.
        gate: Feed-forward; None without a gate.
        into_heads: Further maps whose outputs belong to the heads, cut as q is.
        other: Further maps that may be pruned.
        attention_norm, ffn_norm: Full paths of the norm of each part.
        per_head: Full names of further parameters with one part per head, and the dimension that counts heads.
    """

    path: str
    q: Map
    k: Map
    v: Map
    o: Map
    up: Map
    down: Map
    gate: Map | None
    into_heads: tuple[Map, ...]
    other: tuple[Map, ...]
    attention_norm: str
    ffn_norm: str
    per_head: tuple[tuple[str, int], ...]

    @property
    def maps(self) -> tuple[Map, ...]:
        """Every linear map of the layer that may be pruned."""
        gate = (self.gate,) if self.gate is not None else ()
        return (self.q, self.k, self.v, self.o, *self.into_heads, self.up, *gate, self.down, *self.other)


@dataclass(frozen=True)
class Anatomy:
    """The parts of one model. Names are full parameter or module names of that model.

    Attributes:
        model_type: As in the configuration.
        family: Entry of the table; None: the generic rule.
        base: Path of the base model; empty if the model is one.
        hidden_size: Width of the residual stream; None if the configuration has no such field.
        prunable: Parameters that may be pruned, in the model's order: a weight each, without biases.
        biases: Bias of each of ``prunable`` that has one, by the weight's name.
        layers: Layers in the model's order; empty under the generic rule.
        order: Places in ``layers`` as the forward pass runs them; longer than ``layers`` where layers are shared.
        num_heads: Heads of each layer; None under the generic rule.
        num_kv_heads: Key-value heads of each layer, each with num_heads / num_kv_heads heads.
        head_size: Elements of a head.
        intermediate_size: Feed-forward units of a layer.
        embeddings: Tables of embeddings, as parameter names.
        embedding_projection: Map from embedding size to hidden size, as a parameter name; None if there is none.
        base_norms: Paths of the norms outside the layers.
    """

    model_type: str
    family: Family | None
    base: str
    hidden_size: int | None
    prunable: tuple[str, ...]
    biases: dict[str, str]
    layers: tuple[Layer, ...] = ()
    order: tuple[int, ...] = ()
    num_heads: int | None = None
    num_kv_heads: int | None = None
    head_size: int | None = None
    intermediate_size: int | None = None
    embeddings: tuple[str, ...] = ()
    embedding_projection: str | None = None
    base_norms: tuple[str, ...] = field(default=())


def anatomy_of(model: PreTrainedModel) -> Anatomy:
    """Bind the table to a model: the entry of its model type, or the generic rule."""
    family = family_of(model.config.model_type)
    layers = _layers(model, family) if family is not None else ()
    if family is None or not layers:  # the second: modules of the user's own under a known model type
        return _generic(model)
    parameters = dict(model.named_parameters())
    base = _base(model)
    outside = [f"{base}{name}.weight" for name in family.beside_layers]
    names = {m.weight for layer in layers for m in layer.maps} | set(outside)
    prunable = tuple(name for name in parameters if name in names)
    config, fields = model.config, family.fields
    heads = _number(config, fields.num_heads)
    hidden_size = _number(config, fields.hidden_size)
    modules = dict(model.named_modules())
    projection = f"{base}{family.embedding_projection}.weight"
    return Anatomy(
        model_type=model.config.model_type,
        family=family,
        base=base.removesuffix("."),
        hidden_size=hidden_size,
        prunable=prunable,
        biases=_biases(prunable, parameters),
        layers=layers,
        order=_order(family, layers, _number(config, fields.num_layers)),
        num_heads=heads,
        num_kv_heads=_number(config, fields.num_kv_heads, heads),
        head_size=_number(config, fields.head_size, hidden_size // heads),
        intermediate_size=_number(config, fields.intermediate_size),
        embeddings=tuple(n for n in (f"{base}{name}.weight" for name in family.embeddings) if n in parameters),
        embedding_projection=projection if projection in parameters else None,
        base_norms=tuple(n for n in (f"{base}{name}" for name in family.base_norms) if n in modules),
    )


def _number(config: Any, name: str | None, otherwise: int | None = None) -> int:
    """A number of a configuration, or what stands for it where the field is missing or None."""
    found = getattr(config, name, None) if name is not None else None
    found = otherwise if found is None else found
    assert found is not None, f"the table names a field {name} that {type(config).__name__} lacks"
    return int(found)


def _base(model: PreTrainedModel) -> str:
    """What stands before the names of the base model: empty, or a path and a dot."""
    return "" if model.base_model is model else f"{model.base_model_prefix}."


def _layers(model: PreTrainedModel, family: Family) -> tuple[Layer, ...]:
    parameters = dict(model.named_parameters())
    base = _base(model)
    paths = [name for name, _ in model.named_modules() if name.startswith(base) and is_layer(family, name)]
    found = [_layer(path, family, parameters) for path in paths]
    layers = tuple(layer for layer in found if layer is not None)
    return layers if len(layers) == len(paths) else ()


def _layer(path: str, family: Family, parameters: dict[str, nn.Parameter]) -> Layer | None:
    """The layer at a path; None if it has no module that the table names."""

    def bind(name: str) -> Map | None:
        weight = parameters.get(f"{path}.{family.weight_of(name)}")
        if weight is None:
            return None
        bare = family.weight_of(name) == name
        bias = None if bare else f"{path}.{name}.bias"
        leads_out = family.roles[name] in {"o", "down"}
        return Map(
            weight=f"{path}.{family.weight_of(name)}",
            bias=bias if bias in parameters else None,
            shape=tuple(weight.shape),
            axis=1 if bare or leads_out else 0,
            parts_bias=not leads_out,
        )

    maps: dict[Role, Map] = {}
    for name, role in family.roles.items():
        if role in {"into_heads", "other"}:
            continue
        found = bind(name)
        if found is None:
            return None
        maps[role] = found
    return Layer(
        path=path,
        q=maps["q"],
        k=maps["k"],
        v=maps["v"],
        o=maps["o"],
        up=maps["up"],
        down=maps["down"],
        gate=maps.get("gate"),
        into_heads=tuple(m for m in map(bind, family.into_heads) if m is not None),
        other=tuple(m for m in map(bind, family.other) if m is not None),
        attention_norm=f"{path}.{family.attention_norm}",
        ffn_norm=f"{path}.{family.ffn_norm}",
        per_head=tuple((f"{path}.{n}", axis) for n, axis in family.per_head if f"{path}.{n}" in parameters),
    )


def _order(family: Family, layers: tuple[Layer, ...], num_layers: int) -> tuple[int, ...]:
    if not family.shares_layers:
        return tuple(range(len(layers)))
    groups: dict[str, list[int]] = {}
    for place, layer in enumerate(layers):
        group = layer.path.rsplit(".", 2)[0]
        groups.setdefault(group, []).append(place)
    members = list(groups.values())
    runs = [members[i * len(members) // num_layers] for i in range(num_layers)]
    return tuple(place for group in runs for place in group)


def _generic(model: PreTrainedModel) -> Anatomy:
    base = _base(model)
    linear = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name.startswith(base)
        and not outside_encoder(name, module.out_features, module.in_features)
    }
    parameters = dict(model.named_parameters())
    prunable = tuple(name for name in parameters if name in linear)
    hidden_size = getattr(model.config, "hidden_size", None)
    return Anatomy(
        model_type=model.config.model_type,
        family=None,
        base=base.removesuffix("."),
        hidden_size=hidden_size,
        prunable=prunable,
        biases=_biases(prunable, parameters),
    )


def _biases(weights: tuple[str, ...], parameters: dict[str, nn.Parameter]) -> dict[str, str]:
    found = {name: f"{name.removesuffix('.weight')}.bias" for name in weights if name.endswith(".weight")}
    return {name: bias for name, bias in found.items() if bias in parameters}


def unreached(model: PreTrainedModel, anatomy: Anatomy) -> dict[str, nn.Parameter]:
    """Matrices of the base model that are no embeddings and that ``anatomy.prunable`` does not have.

    Experts of a mixture (parameters of three dimensions), convolutions, ``Conv1D`` and bare parameters are such.
    """
    base = f"{anatomy.base}." if anatomy.base else ""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    taken = set(anatomy.prunable)
    return {
        name: weight
        for name, weight in model.named_parameters()
        if weight.dim() > 1 and name.startswith(base) and name not in taken and id(weight) not in tables
    }
