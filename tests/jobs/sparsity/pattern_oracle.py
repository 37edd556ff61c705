"""What patterns should choose, by brute force over lists of positions, and the selector run on ranks that are threads.

Nothing here is taken from ``jobs``: groups are written down position by position, scores are exact fractions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from prunus.configs.values.selection import Selection
from prunus.jobs.engine.shards import Shard
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.selector import Selector
from tests.jobs.thread_gang import run_gang

Position = tuple[int, int, int]
"""Weight, row, column."""
Group = list[Position]
Bits = list[list[bool]]
"""Of each weight, flattened: True keeps."""


@dataclass(frozen=True)
class Rule:
    """The fields of a method's spec that a selector reads. A final sparsity of 0 may be reached in any pool."""

    pattern: str = "unstructured"
    norm: str = "l1"
    scope: str = "per_layer"
    group_by: str | None = None
    final_sparsity: float = 0.0

    @property
    def selection(self) -> Selection:
        return Selection(self.pattern, self.norm, self.scope, self.group_by)


@dataclass
class Layer:
    """Places of an encoder layer's weights in the model."""

    into_heads: list[int] = field(default_factory=list)
    out_of_heads: int = -1
    into_units: int = -1
    out_of_units: int = -1


@dataclass
class Model:
    """Weights in order, as a checkpoint names them."""

    names: list[str] = field(default_factory=list)
    arrays: list[np.ndarray] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    num_heads: int = 1

    def add(self, name: str, array: np.ndarray) -> int:
        """Put a weight last; returns its place."""
        self.names.append(name)
        self.arrays.append(array.astype(np.float32))
        return len(self.names) - 1


NAMES = {
    "bert": ("bert.encoder.layer.{}.", ["attention.self.query", "attention.self.key", "attention.self.value"],
             "attention.output.dense", "intermediate.dense", "output.dense"),
    "distilbert": ("distilbert.transformer.layer.{}.", ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
                   "attention.out_lin", "ffn.lin1", "ffn.lin2"),
    "wav2vec2": ("wav2vec2.encoder.layers.{}.", ["attention.k_proj", "attention.v_proj", "attention.q_proj"],
                 "attention.out_proj", "feed_forward.intermediate_dense", "feed_forward.output_dense"),
    "albert": ("albert.encoder.albert_layer_groups.0.albert_layers.{}.",
               ["attention.query", "attention.key", "attention.value"], "attention.dense", "ffn", "ffn_output"),
}  # fmt: skip
"""Published names: prefix of a layer, into the heads, out of the heads, into the units, out of the units."""


def encoder(
    family: str, num_layers: int, heads: int, head_size: int, units: int, values: Callable[[int, int], np.ndarray]
) -> Model:
    """A model of ``num_layers`` with weights from ``values(rows, columns)``."""
    prefix, into_heads, out_of_heads, into_units, out_of_units = NAMES[family]
    model, hidden = Model(num_heads=heads), heads * head_size
    for number in range(num_layers):
        start = prefix.format(number)
        layer = Layer([model.add(f"{start}{name}.weight", values(hidden, hidden)) for name in into_heads])
        layer.out_of_heads = model.add(f"{start}{out_of_heads}.weight", values(hidden, hidden))
        layer.into_units = model.add(f"{start}{into_units}.weight", values(units, hidden))
        layer.out_of_units = model.add(f"{start}{out_of_units}.weight", values(hidden, units))
        model.layers.append(layer)
    return model


def of_part(model: Model, pattern: str) -> Model:
    """Only the weights that the pattern has a place for, as ``prunable.exclude`` would leave them."""
    if pattern == "sublayers":
        return model
    chosen = Model(num_heads=model.num_heads)
    for layer in model.layers:
        start = len(chosen.names)
        places = (
            [*layer.into_heads, layer.out_of_heads] if pattern == "heads" else [layer.into_units, layer.out_of_units]
        )
        for place in places:
            chosen.add(model.names[place], model.arrays[place])
        chosen.layers.append(type(layer)(list(range(start, start + 3)), start + 3, start, start + 1))
    return chosen


def rectangle(weight: int, rows: range, columns: range) -> Group:
    return [(weight, r, c) for r in rows for c in columns]


def group_sets(pattern: str, model: Model) -> list[tuple[int, list[Group]]]:
    """Groups that compete under scope per_layer, by first weight, in the order of the model."""
    shapes = [array.shape for array in model.arrays]

    def whole(weight: int) -> Group:
        return rectangle(weight, range(shapes[weight][0]), range(shapes[weight][1]))

    if pattern == "rows":
        return [(w, [rectangle(w, range(r, r + 1), range(cs)) for r in range(rs)]) for w, (rs, cs) in enumerate(shapes)]
    if pattern == "columns":
        return [(w, [rectangle(w, range(rs), range(c, c + 1)) for c in range(cs)]) for w, (rs, cs) in enumerate(shapes)]
    if "x" in pattern:
        height, width = map(int, pattern.split("x"))
        return [
            (
                w,
                [
                    rectangle(w, range(r, r + height), range(c, c + width))
                    for r in range(0, rows, height)
                    for c in range(0, columns, width)
                ],
            )
            for w, (rows, columns) in enumerate(shapes)
        ]
    found: list[tuple[int, list[Group]]] = []
    for layer in model.layers:
        if pattern == "heads":
            size = shapes[layer.out_of_heads][1] // model.num_heads
            heads = []
            for begin in range(0, shapes[layer.out_of_heads][1], size):
                own = range(begin, begin + size)
                group = [p for w in layer.into_heads for p in rectangle(w, own, range(shapes[w][1]))]
                heads.append(group + rectangle(layer.out_of_heads, range(shapes[layer.out_of_heads][0]), own))
            found.append((layer.into_heads[0], heads))
        if pattern == "ffn_units":
            units = [
                rectangle(layer.into_units, range(u, u + 1), range(shapes[layer.into_units][1]))
                + rectangle(layer.out_of_units, range(shapes[layer.out_of_units][0]), range(u, u + 1))
                for u in range(shapes[layer.into_units][0])
            ]
            found.append((layer.into_units, units))
        if pattern == "sublayers":
            attention = [p for w in [*layer.into_heads, layer.out_of_heads] for p in whole(w)]
            found.append((layer.into_heads[0], [attention]))
            found.append((layer.into_units, [whole(layer.into_units) + whole(layer.out_of_units)]))
    return found


def score(group: Group, arrays: Sequence[np.ndarray], norm: str) -> Fraction:
    """Exact; for ``l2`` the square of the norm, which orders alike."""
    values = [Fraction(float(arrays[w][r, c])) for w, r, c in group]
    if norm == "l2":
        return sum((v * v for v in values), Fraction(0))
    return sum(values, Fraction(0)) / (len(values) if norm == "mean" else 1)


def remove_smallest(pools: list[list[Group]], model: Model, norm: str, sparsity: Fraction) -> Bits:
    """Of each pool the floor of its share of groups goes: the smallest, of equals the first."""
    keep = [np.ones(array.shape, dtype=bool) for array in model.arrays]
    for pool in pools:
        scores = [score(group, model.arrays, norm) for group in pool]
        order = sorted(range(len(pool)), key=lambda g: (scores[g], g))
        for g in order[: sparsity * len(pool) // 1]:
            for w, r, c in pool[g]:
                keep[w][r, c] = False
    return [mask.ravel().tolist() for mask in keep]


# The selector on ranks


def whole_shards(names: Sequence[str], shapes: Sequence[tuple[int, ...]], replicated: bool = True) -> list[Shard]:
    nothing: Any = None
    return [
        Shard(name, i, tuple(shape), 0, int(np.prod(shape)), replicated, nothing, nothing, nothing)
        for i, (name, shape) in enumerate(zip(names, shapes, strict=True))
    ]


def select_on_ranks(
    rule: Rule, model: Model, cuts: list[list[int]] | None, sparsity: float, world_size: int = 1
) -> Bits:
    """Masks, joined over ranks. Rank r has [cuts[w][r], cuts[w][r + 1]) of each weight; without cuts, all of it."""
    world_size = len(cuts[0]) - 1 if cuts else world_size

    def act(ranks: Ranks) -> list[torch.Tensor]:
        nothing: Any = None
        shards, runs = [], []
        for i, (name, array) in enumerate(zip(model.names, model.arrays, strict=True)):
            begin, end = cuts[i][ranks.rank : ranks.rank + 2] if cuts else (0, array.size)
            shape = tuple(array.shape)
            shards.append(Shard(name, i, shape, begin, end - begin, cuts is None, nothing, nothing, nothing))
            runs.append(torch.from_numpy(array.ravel()[begin:end].copy()))
        return list(
            Selector(rule.selection, rule.final_sparsity, shards, ranks, model.num_heads).select(runs, sparsity)
        )

    kept = run_gang(world_size, act)
    for of_rank in kept:
        assert all(mask.dtype == torch.bool for mask in of_rank)
    if cuts is None:
        masks = [[mask.tolist() for mask in of_rank] for of_rank in kept]
        assert all(other == masks[0] for other in masks)
        return masks[0]
    return [torch.cat([of_rank[i] for of_rank in kept]).tolist() for i in range(len(model.names))]


@st.composite
def cuts_of(draw: st.DrawFn, sizes: Sequence[int]) -> list[list[int]] | None:
    """Where 1 to 3 ranks cut each weight, anywhere; None: every rank has all."""
    world_size = draw(st.integers(1, 3))
    if draw(st.integers(0, 4)) == 0:
        return None
    inner = [draw(st.lists(st.integers(0, n), min_size=world_size - 1, max_size=world_size - 1)) for n in sizes]
    return [[0, *sorted(points), n] for points, n in zip(inner, sizes, strict=True)]


def random_cuts(sizes: Sequence[int], world_size: int, generator: np.random.Generator) -> list[list[int]]:
    return [[0, *sorted(generator.integers(0, n + 1, world_size - 1).tolist()), n] for n in sizes]
