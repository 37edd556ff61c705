"""The table against random models: names exist, shapes agree with the configuration, a head is a head.

That a head or unit of the table is one of the model is checked from outside: hooks remove what it adds where
transformers' own layers hand it on, at module paths that are written down here.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from prunus.configs.values.family_table import FAMILIES
from prunus.jobs.models.anatomy import Anatomy, Layer, Map, anatomy_of, unreached
from tests.jobs.models.tiny_families import HEADS, HIDDEN, MODEL_TYPES, UNITS, build, last_hidden

OUTPUT_MODULES = {
    "attention.output.dense": ("bert", "ernie", "roberta", "xlm-roberta", "camembert", "data2vec-text", "electra",
                               "deberta-v2"),
    "attention.out_lin": ("distilbert",),
    "attention.dense": ("albert",),
    "attention.attn.o": ("mpnet",),
    "attention.out_proj": ("wav2vec2", "unispeech", "unispeech-sat", "data2vec-audio", "hubert"),
    "self_attn.o_proj": ("llama", "mistral", "qwen2", "qwen3", "gemma"),
}  # fmt: skip
"""The module whose input is all heads side by side. XLNet and WavLM have none: they use bare weights."""
LAST_FEED_FORWARD = {
    "output.dense": ("bert", "ernie", "roberta", "xlm-roberta", "camembert", "data2vec-text", "electra", "deberta-v2",
                     "mpnet"),
    "ffn.lin2": ("distilbert",),
    "ffn_output": ("albert",),
    "ff.layer_2": ("xlnet",),
    "feed_forward.output_dense": ("wav2vec2", "unispeech", "unispeech-sat", "data2vec-audio", "hubert", "wavlm"),
    "mlp.down_proj": ("llama", "mistral", "qwen2", "qwen3", "gemma"),
}  # fmt: skip
LAYERS = {
    "albert.encoder.albert_layer_groups.1.albert_layers.0": ("albert",),
    "distilbert.transformer.layer.1": ("distilbert",),
    "transformer.layer.1": ("xlnet",),
    "model.layers.1": ("llama", "mistral", "qwen2", "qwen3", "gemma"),
    "deberta.encoder.layer.1": ("deberta-v2",),
    "BASE.encoder.layers.1": ("wav2vec2", "unispeech", "unispeech-sat", "data2vec-audio", "hubert", "wavlm"),
    "BASE.encoder.layer.1": ("bert", "ernie", "roberta", "xlm-roberta", "camembert", "data2vec-text", "electra",
                             "mpnet"),
}  # fmt: skip
"""Path of the second layer."""


def known(table: dict[str, tuple[str, ...]], model_type: str) -> str:
    [found] = [name for name, model_types in table.items() if model_type in model_types]
    return found


def second_layer(model: PreTrainedModel) -> str:
    path = known(LAYERS, model.config.model_type)
    return path.replace("BASE", model.base_model_prefix)


@pytest.fixture(params=MODEL_TYPES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return build(request.param)


def test_the_models_of_this_file_are_those_of_the_table() -> None:
    assert set(MODEL_TYPES) == {model_type for family in FAMILIES for model_type in family.model_types}


class TestNames:
    def test_every_name_exists_and_shapes_agree_with_the_configuration(self, model: PreTrainedModel) -> None:
        found = anatomy_of(model)
        parameters, modules = dict(model.named_parameters()), dict(model.named_modules())
        assert found.base in modules
        assert modules[found.base] is model.base_model
        heads, groups, size = sizes(found)
        assert len(found.layers) == 2
        for layer in found.layers:
            assert layer.path in modules
            assert isinstance(modules[layer.attention_norm], nn.Module)
            assert isinstance(modules[layer.ffn_norm], nn.Module)
            assert len({layer.attention_norm, layer.ffn_norm}) == 2
            for part in layer.maps:
                assert part.shape == tuple(parameters[part.weight].shape)
                assert part.bias is None or part.bias in parameters
            if found.model_type == "xlnet":
                assert {m.shape for m in (layer.q, layer.k, layer.v, layer.o)} == {(HIDDEN, heads, size)}
            else:
                assert layer.q.shape == (heads * size, HIDDEN)
                assert layer.k.shape == layer.v.shape == (groups * size, HIDDEN)
                assert layer.o.shape == (HIDDEN, heads * size)
            assert layer.up.shape == (UNITS, HIDDEN)
            assert layer.down.shape == (HIDDEN, UNITS)
            assert layer.gate is None or layer.gate.shape == (UNITS, HIDDEN)
            assert (layer.gate is not None) == ("num_key_value_heads" in vars(model.config))
            for name, axis in layer.per_head:
                assert parameters[name].shape[axis] == heads
        assert all(parameters[name].shape[0] == model.config.vocab_size for name in found.embeddings[:1])
        assert all(name in modules for name in found.base_norms)

    def test_the_second_layer_is_where_transformers_has_it(self, model: PreTrainedModel) -> None:
        assert anatomy_of(model).layers[1].path == second_layer(model)

    def test_a_model_without_a_head_has_the_same_parts_without_the_prefix(self, model: PreTrainedModel) -> None:
        with_head, without = anatomy_of(model), anatomy_of(model.base_model)
        assert without.base == ""
        assert [f"{with_head.base}.{name}" for name in without.prunable] == list(with_head.prunable)

    def test_the_biases_of_bert_stand_behind_their_weights(self) -> None:
        found = anatomy_of(build("bert"))
        assert found.biases["bert.encoder.layer.0.output.dense.weight"] == "bert.encoder.layer.0.output.dense.bias"
        assert len(found.biases) == len(found.prunable) == 12


def sizes(found: Anatomy) -> tuple[int, int, int]:
    """Heads, key-value heads and head size, which this file's configurations say: 3 of 4, or 6 of 4 in 2 groups."""
    assert found.num_heads is not None
    assert found.num_kv_heads is not None
    assert found.head_size is not None
    expected = {"qwen2": (6, 2, 2), **dict.fromkeys(("llama", "mistral", "qwen3", "gemma"), (6, 2, 4))}
    counts = (found.num_heads, found.num_kv_heads, found.head_size)
    assert counts == expected.get(found.model_type, (HEADS, HEADS, 4))
    assert (found.hidden_size, found.intermediate_size) == (HIDDEN, UNITS)
    return counts


# Zeroing by the table against transformers' own forward pass


@contextmanager
def without_head(model: PreTrainedModel, head: int) -> Iterator[None]:
    """Take away what a head of the second layer adds, where the attention hands its heads on."""
    layer = model.get_submodule(second_layer(model))
    heads = {"llama": 6, "mistral": 6, "qwen2": 6, "qwen3": 6, "gemma": 6}.get(model.config.model_type, HEADS)
    if model.config.model_type == "xlnet":
        core = layer.rel_attn.rel_attn_core

        def drop_vector(*args: Any, **options: Any) -> torch.Tensor:
            vectors_LBND = core(*args, **options).clone()
            vectors_LBND[:, :, head] = 0
            return vectors_LBND

        layer.rel_attn.rel_attn_core = drop_vector
        yield
        del layer.rel_attn.rel_attn_core
    elif model.config.model_type == "wavlm":
        bare = layer.attention.torch_multi_head_self_attention

        def drop_probabilities(hidden: torch.Tensor, mask: Any, position_bias: torch.Tensor) -> Any:
            out = attention_by_hand(layer.attention, hidden, position_bias, HEADS, None)
            torch.testing.assert_close(out, bare(hidden, mask, position_bias)[0])
            return attention_by_hand(layer.attention, hidden, position_bias, HEADS, head), None

        layer.attention.torch_multi_head_self_attention = drop_probabilities
        yield
        del layer.attention.torch_multi_head_self_attention
    else:

        def drop_columns(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            context = inputs[0].clone()
            context.unflatten(-1, (heads, -1))[..., head, :] = 0
            return (context, *inputs[1:])

        output = layer.get_submodule(known(OUTPUT_MODULES, model.config.model_type))
        handle = output.register_forward_pre_hook(drop_columns)
        yield
        handle.remove()


def attention_by_hand(
    attention: Any, hidden_BLC: torch.Tensor, bias: torch.Tensor, heads: int, dropped: int | None
) -> torch.Tensor:
    """WavLM's attention, head by head."""
    q, k, v = (
        m(hidden_BLC).unflatten(-1, (heads, -1)).transpose(1, 2)
        for m in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias.unflatten(0, (-1, heads))
    context = scores.softmax(-1) @ v
    if dropped is not None:
        context[:, dropped] = 0
    return attention.out_proj(context.transpose(1, 2).flatten(-2))


def zero(model: PreTrainedModel, part: Map, index: int, count: int) -> None:
    with torch.no_grad():
        model.get_parameter(part.weight)[part.part(index, count)] = 0
        if part.bias is not None and part.parts_bias:
            model.get_parameter(part.bias)[part.part(index, count)[-1]] = 0


def zeroed(model: PreTrainedModel, act: Callable[[PreTrainedModel, Layer], None]) -> torch.Tensor:
    changed = copy.deepcopy(model)
    act(changed, anatomy_of(changed).layers[1])
    return last_hidden(changed)


def test_zeroing_a_head_by_the_table_removes_what_that_head_adds(model: PreTrainedModel) -> None:
    heads, groups, _ = sizes(anatomy_of(model))
    whole = last_hidden(model)
    for head in (0, heads - 1):
        with without_head(model, head):
            expected = last_hidden(model)
        assert (expected - whole).abs().max() > 1e-4, "the head adds something"
        found = zeroed(model, lambda changed, layer, h=head: zero(changed, layer.o, h, heads))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        if groups == heads:
            found = zeroed(model, lambda changed, layer, h=head: zero(changed, layer.v, h, heads))
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

            def everything(changed: PreTrainedModel, layer: Layer, h: int = head) -> None:
                for part in (layer.q, layer.k, layer.v, layer.o, *layer.into_heads):
                    zero(changed, part, h, heads)

            torch.testing.assert_close(zeroed(model, everything), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3", "gemma"])
def test_zeroing_a_key_value_head_removes_all_heads_that_share_it_and_no_other(model_type: str) -> None:
    model = build(model_type)
    for group, heads in ((0, (0, 1, 2)), (1, (3, 4, 5))):
        with without_head(model, heads[0]), without_head(model, heads[1]), without_head(model, heads[2]):
            expected = last_hidden(model)
        found = zeroed(model, lambda changed, layer, g=group: zero(changed, layer.v, g, 2))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

        def everything(changed: PreTrainedModel, layer: Layer, g: int = group) -> None:
            for part in (layer.q, layer.k, layer.v, layer.o):
                zero(changed, part, g, 2)

        torch.testing.assert_close(zeroed(model, everything), expected, rtol=1e-5, atol=1e-5)


def test_zeroing_a_unit_by_the_table_removes_what_that_unit_adds(model: PreTrainedModel) -> None:
    down = model.get_submodule(f"{second_layer(model)}.{known(LAST_FEED_FORWARD, model.config.model_type)}")
    whole = last_hidden(model)
    for unit in range(UNITS):

        def drop_unit(module: nn.Module, inputs: tuple[torch.Tensor, ...], u: int = unit) -> torch.Tensor:
            units = inputs[0].clone()
            units[..., u] = 0
            return units

        handle = down.register_forward_pre_hook(drop_unit)
        expected = last_hidden(model)
        handle.remove()
        if (expected - whole).abs().max() < 1e-4:
            continue  # the activation of this unit is near 0 on these inputs
        found = zeroed(model, lambda changed, layer, u=unit: zero(changed, layer.down, u, UNITS))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        found = zeroed(model, lambda changed, layer, u=unit: zero(changed, layer.up, u, UNITS))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        if anatomy_of(model).layers[1].gate is not None:
            found = zeroed(model, lambda changed, layer, u=unit: zero(changed, layer.gate, u, UNITS))  # type: ignore[arg-type]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        return
    pytest.fail("no unit adds anything")


# Shared layers, and families that are not in the table


def test_the_order_of_alberts_shared_layers_is_that_of_the_forward_pass() -> None:
    model = build("albert", num_hidden_layers=7, num_hidden_groups=3, inner_group_num=2)
    found = anatomy_of(model)
    ran = []
    for place, layer in enumerate(found.layers):
        model.get_submodule(layer.path).register_forward_hook(lambda *_, p=place: ran.append(p))
    last_hidden(model)
    assert len(found.layers) == 6
    assert found.order == tuple(ran)
    assert ran == [0, 1] * 3 + [2, 3] * 2 + [4, 5] * 2


def test_the_order_of_other_layers_is_that_of_the_model(model: PreTrainedModel) -> None:
    expected = (0, 0, 0, 1, 1, 1) if model.config.model_type == "albert" else (0, 1)
    assert anatomy_of(model).order == expected


def gpt_neox() -> PreTrainedModel:
    config = transformers.GPTNeoXConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20, vocab_size=10
    )
    return transformers.GPTNeoXForCausalLM(config)


def test_a_family_that_is_not_in_the_table_has_linear_layers_and_nothing_else() -> None:
    found = anatomy_of(gpt_neox())
    assert found.family is None
    assert (found.layers, found.num_heads, found.intermediate_size) == ((), None, None)
    kinds = {name.split(".", 3)[3] for name in found.prunable}
    assert kinds == {"attention.query_key_value.weight", "attention.dense.weight", "mlp.dense_h_to_4h.weight",
                     "mlp.dense_4h_to_h.weight"}  # fmt: skip
    assert len(found.prunable) == 8
    assert unreached(gpt_neox(), found) == {}


def test_modules_of_the_users_own_under_a_known_model_type_get_the_generic_rule() -> None:
    model = build("bert")
    model.bert.encoder.layer[0].intermediate.dense = nn.Sequential(nn.Linear(HIDDEN, UNITS))
    found = anatomy_of(model)
    assert found.family is None
    assert "bert.encoder.layer.0.intermediate.dense.0.weight" in found.prunable


def test_experts_of_a_mixture_are_not_reached_and_said() -> None:
    config = transformers.MixtralConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1, intermediate_size=20,
        vocab_size=10, num_local_experts=4,
    )  # fmt: skip
    model = transformers.MixtralForCausalLM(config)
    left = unreached(model, anatomy_of(model))
    assert {name.split(".", 3)[3] for name in left} >= {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"}
