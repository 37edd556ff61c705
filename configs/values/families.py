"""What a model family's parts are called in transformers: one entry of the table in ``family_table`` per layout.

Pure names, no torch: jobs binds them to a model (``jobs/models/anatomy``), inspection reads a checkpoint by them.
Names of a layer's parts are relative to the layer, others to the base model. To teach prunus a family, add an entry.

    bert.encoder.layer.3.attention.self.query.weight
    base|     layer     |          q         |
"""

from dataclasses import dataclass, field
from typing import Literal

Role = Literal["q", "k", "v", "o", "into_heads", "up", "gate", "down", "other"]
"""Of a linear map in a layer: ``into_heads`` are further maps whose outputs belong to the heads, ``other`` has none."""

Storage = Literal["out_in", "bare"]
"""How a linear map lies in memory.

out_in  ``nn.Linear``: NAME.weight (outputs, inputs) and NAME.bias
bare    a parameter NAME of its own (hidden, heads, head size), whichever of them are the inputs; no bias (XLNet)
"""


@dataclass(frozen=True)
class Fields:
    """Names of a configuration's fields.

    ``num_kv_heads`` and ``head_size`` may be None, or name a field without a value: then there are as many key-value
    heads as heads, and a head has hidden size / heads elements.
    """

    num_layers: str = "num_hidden_layers"
    num_heads: str = "num_attention_heads"
    num_kv_heads: str | None = None
    head_size: str | None = None
    hidden_size: str = "hidden_size"
    intermediate_size: str = "intermediate_size"


@dataclass(frozen=True)
class Family:
    """Names of the parts of all models with one layout.

    Attributes:
        model_types: Values of ``config.model_type`` that it holds for.
        base: Where the base model stands in a model with a task head.
        layer: Path of a layer; a component in braces stands for a number. Two of them: group and layer in the group.
        q, k, v, o: Query, key, value and output of self-attention.
        up, down: First and last map of the feed-forward part. A unit is an output of the first.
        attention_norm, ffn_norm: Norm before or behind each of the two parts.
        gate: Map beside ``up`` whose activated output multiplies up's.
        into_heads: Further maps whose outputs belong to the heads, as q's do. Not every model has them.
        other: Further maps of a layer that may be pruned. Not every model has them.
        beside_layers: Maps outside the layers that may be pruned. Not every model has them.
        per_head: Further parameters with one part per head: name, and the dimension that counts heads.
        embeddings: Tables of embeddings.
        embedding_projection: Map from embedding size to hidden size. Not every model has it.
        base_norms: Norms outside the layers. Not every model has them.
        attention_storage: How q, k, v, o and ``into_heads`` lie in memory.
        shares_layers: Layers run several times (ALBERT): group g of G runs num_layers / G times.
        fields: Names of the configuration's fields.
    """

    model_types: tuple[str, ...]
    base: str
    layer: str
    q: str
    k: str
    v: str
    o: str
    up: str
    down: str
    attention_norm: str
    ffn_norm: str
    embeddings: tuple[str, ...]
    gate: str | None = None
    into_heads: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    beside_layers: tuple[str, ...] = ()
    per_head: tuple[tuple[str, int], ...] = ()
    embedding_projection: str | None = None
    base_norms: tuple[str, ...] = ()
    attention_storage: Storage = "out_in"
    shares_layers: bool = False
    fields: Fields = field(default_factory=Fields)

    @property
    def roles(self) -> dict[str, Role]:
        """Role of each linear map of a layer, by the map's name."""
        roles: dict[str, Role] = {self.q: "q", self.k: "k", self.v: "v", self.o: "o", self.up: "up", self.down: "down"}
        if self.gate is not None:
            roles[self.gate] = "gate"
        return roles | dict.fromkeys(self.into_heads, "into_heads") | dict.fromkeys(self.other, "other")

    def weight_of(self, name: str) -> str:
        """Name of the parameter that holds a linear map."""
        in_attention = self.roles.get(name) in {"q", "k", "v", "o", "into_heads"}
        return name if in_attention and self.attention_storage == "bare" else f"{name}.weight"


@dataclass(frozen=True)
class Place:
    """Where a weight stands in its model.

    Attributes:
        layer: Full path of the layer; empty for a map outside the layers.
        role: What it does there.
    """

    layer: str
    role: Role


def place_in(family: Family, weight: str) -> Place | None:
    """Find the place of a prunable weight by its full name; None for any other parameter."""
    for name, role in family.roles.items():
        suffix = f".{family.weight_of(name)}"
        if weight.endswith(suffix) and is_layer(family, weight.removesuffix(suffix)):
            return Place(weight.removesuffix(suffix), role)
    outside = {f"{name}.weight" for name in family.beside_layers}
    if weight in outside or weight.removeprefix(f"{family.base}.") in outside:
        return Place("", "other")
    return None


def is_layer(family: Family, path: str) -> bool:
    """Tell whether a path, with or without what stands before the base model, is that of a layer."""
    wanted = family.layer.split(".")
    found = path.split(".")[-len(wanted) :]
    return len(found) == len(wanted) and all(
        part.isdecimal() if name.startswith("{") else part == name for name, part in zip(wanted, found, strict=True)
    )


_NOT_IN_ENCODER = frozenset(
    {
        "pooler", "embedding", "embeddings", "feature_projection", "feature_extractor", "gru_rel_pos_linear",
        "contact_head", "lm_head", "router",
    }
)  # fmt: skip
_WIDEST_GATE = 4
"""A map called ``gate`` with at most a quarter as many outputs as inputs chooses experts; a wider one is a layer."""


def outside_encoder(name: str, num_outputs: int, num_inputs: int) -> bool:
    """Tell, for a family that is not in the table, whether a linear layer of the base model is left out.

    Left out are poolers, maps to and from embeddings, feature extractors, task heads, what routes to experts, and maps
    with a single output.
    """
    parts = name.split(".")
    if num_outputs == 1 or ("gate" in parts and num_outputs * _WIDEST_GATE <= num_inputs):
        return True
    return any(part in _NOT_IN_ENCODER or part.startswith(("embedding_", "embeddings_")) for part in parts)


_IN_ENCODER = frozenset({"encoder", "transformer", "layer", "layers", "block", "blocks", "h"})
_IN_HEADS = ("embed", "norm", "pooler", "classifier", "lm_head", "score", "qa_outputs", "predictions")


def guess_prunable(weight: str, shape: tuple[int, ...]) -> bool:
    """Guess, for a family that is not in the table, whether a tensor of a file may be pruned, by name and shape.

    A file does not say where the base model ends, nor which matrices are linear layers: so a weight counts if its name
    has the word of an encoder and none of a head. Experts do not count, because the generic rule does not reach them.
    """
    name, dot, kind = weight.rpartition(".")
    if len(shape) != 2 or not dot or kind != "weight" or outside_encoder(name, shape[0], shape[1]):
        return False
    parts = name.split(".")
    if _IN_ENCODER.isdisjoint(parts) or {"cls", "experts"} & set(parts) or parts[-1] == "decoder":
        return False
    return not any(word in name.lower() for word in _IN_HEADS)
