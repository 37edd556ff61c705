"""Which weights may be pruned: the default of every family, written by hand from its source, and rules."""

import logging
from itertools import product

import pytest
import torch
import transformers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from prunus.configs.values.prunable import Prunable
from prunus.jobs.errors import PruningError
from prunus.jobs.models.prunable import prunable_parameters
from tests.jobs import tiny
from tests.jobs.models.tiny_families import MODEL_TYPES, build

EVERY = Prunable()

# In the order in which the modules make them.
_BERT = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
_SPEECH = (
    "attention.k_proj",
    "attention.v_proj",
    "attention.q_proj",
    "attention.out_proj",
    "feed_forward.intermediate_dense",
    "feed_forward.output_dense",
)
_LLAMA = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
          "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip
BY_HAND: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bert": (("bert.encoder.layer.0", "bert.encoder.layer.1"), _BERT),
    "ernie": (("ernie.encoder.layer.0", "ernie.encoder.layer.1"), _BERT),
    "roberta": (("roberta.encoder.layer.0", "roberta.encoder.layer.1"), _BERT),
    "xlm-roberta": (("roberta.encoder.layer.0", "roberta.encoder.layer.1"), _BERT),
    "camembert": (("roberta.encoder.layer.0", "roberta.encoder.layer.1"), _BERT),
    "data2vec-text": (("data2vec_text.encoder.layer.0", "data2vec_text.encoder.layer.1"), _BERT),
    "electra": (("electra.encoder.layer.0", "electra.encoder.layer.1"), _BERT),
    "distilbert": (
        ("distilbert.transformer.layer.0", "distilbert.transformer.layer.1"),
        ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2"),
    ),
    "albert": (
        ("albert.encoder.albert_layer_groups.0.albert_layers.0",
         "albert.encoder.albert_layer_groups.1.albert_layers.0"),
        ("attention.query", "attention.key", "attention.value", "attention.dense", "ffn", "ffn_output"),
    ),
    "mpnet": (
        ("mpnet.encoder.layer.0", "mpnet.encoder.layer.1"),
        ("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o",
         "intermediate.dense", "output.dense"),
    ),
    "deberta-v2": (
        ("deberta.encoder.layer.0", "deberta.encoder.layer.1"),
        ("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj",
         "attention.self.pos_key_proj", "attention.self.pos_query_proj", "attention.output.dense",
         "intermediate.dense", "output.dense"),
    ),
    "xlnet": (
        ("transformer.layer.0", "transformer.layer.1"),
        ("rel_attn.q", "rel_attn.k", "rel_attn.v", "rel_attn.o", "rel_attn.r", "ff.layer_1", "ff.layer_2"),
    ),
    "wav2vec2": (("wav2vec2.encoder.layers.0", "wav2vec2.encoder.layers.1"), _SPEECH),
    "unispeech": (("unispeech.encoder.layers.0", "unispeech.encoder.layers.1"), _SPEECH),
    "unispeech-sat": (("unispeech_sat.encoder.layers.0", "unispeech_sat.encoder.layers.1"), _SPEECH),
    "data2vec-audio": (("data2vec_audio.encoder.layers.0", "data2vec_audio.encoder.layers.1"), _SPEECH),
    "hubert": (("hubert.encoder.layers.0", "hubert.encoder.layers.1"), _SPEECH),
    "wavlm": (("wavlm.encoder.layers.0", "wavlm.encoder.layers.1"), _SPEECH),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), (("model.layers.0", "model.layers.1"), _LLAMA)),
}  # fmt: skip


def by_hand(model_type: str) -> list[str]:
    layers, parts = BY_HAND[model_type]
    return [
        f"{layer}.{part}" if part.startswith("rel_attn.") else f"{layer}.{part}.weight"
        for layer, part in product(layers, parts)
    ]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_default_of_a_family_is_what_its_source_has(model_type: str) -> None:
    assert list(prunable_parameters(build(model_type), EVERY)) == by_hand(model_type)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra"])
def test_cross_attention_of_a_decoder_is_taken_too(model_type: str) -> None:
    model = build(model_type, "Model", is_decoder=True, add_cross_attention=True)
    cross = {"self.query", "self.key", "self.value", "output.dense"}
    added = {f"encoder.layer.{i}.crossattention.{part}.weight" for i in (0, 1) for part in cross}
    plain = {name.partition(".")[2] for name in by_hand(model_type)}
    assert set(prunable_parameters(model, EVERY)) == plain | added


def test_adapters_of_speech_models_are_taken_too() -> None:
    stable = build("wav2vec2", do_stable_layer_norm=True, adapter_attn_dim=4)
    added = {f"wav2vec2.encoder.layers.{i}.adapter_layer.linear_{j}.weight" for i in (0, 1) for j in (1, 2)}
    assert set(prunable_parameters(stable, EVERY)) == {*by_hand("wav2vec2"), *added}
    for model_type in ("wav2vec2", "wavlm"):
        model = build(model_type, "ForCTC", add_adapter=True, output_hidden_size=8, vocab_size=10)
        assert list(prunable_parameters(model, EVERY)) == [*by_hand(model_type), f"{model_type}.adapter.proj.weight"]


# Families that are not in the table

SMALL = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20, "vocab_size": 10}


def words_of(model: PreTrainedModel) -> set[str]:
    return {word for name in prunable_parameters(model, EVERY) for word in name.split(".")}


def test_contact_heads_routers_and_gates_of_one_output_are_left_out() -> None:
    esm = transformers.EsmForMaskedLM(transformers.EsmConfig(**SMALL, pad_token_id=0, position_embedding_type="rotary"))
    assert "query" in words_of(esm)
    assert "contact_head" not in words_of(esm)
    qwen = transformers.Qwen2MoeForCausalLM(
        transformers.Qwen2MoeConfig(**SMALL, num_key_value_heads=3, num_experts=4, shared_expert_intermediate_size=8,
                                    moe_intermediate_size=8, num_experts_per_tok=2)
    )  # fmt: skip
    assert "shared_expert" in words_of(qwen)
    assert not {"gate", "shared_expert_gate"} & words_of(qwen)


def test_a_family_that_is_not_in_the_table_is_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    config = transformers.MixtralConfig(**SMALL, num_key_value_heads=1, num_local_experts=4)
    with caplog.at_level(logging.INFO, logger="prunus.jobs.models.prunable"):
        prunable_parameters(transformers.MixtralForCausalLM(config), EVERY)
    [message] = [record.getMessage() for record in caplog.records]
    assert message.startswith(
        "model type mixtral is not in the table of families: its linear layers are pruned (model."
    )
    # A layer has 12 x 12 + 2 x 4 x 12 + 12 x 12 = 384 weights in q, k, v, o; 4 x 3 x 12 x 20 = 2880 in experts, 48 in
    # the router: 2928 of 3312.
    assert "not pruned: 88% of the weights in its matrices: " in message
    assert "model.layers.N.mlp.experts.down_proj" in message
    assert message.endswith("add an entry to prunus/configs/values/family_table.py")


def test_a_family_of_the_table_is_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="prunus.jobs.models.prunable"):
        prunable_parameters(build("bert"), EVERY)
    assert not caplog.records


def test_a_model_of_other_matrices_is_refused_with_their_kind() -> None:
    gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=12, n_layer=1, n_head=3, vocab_size=10))
    with pytest.raises(PruningError, match=r"no linear layer .* its matrices are Conv1D, and prunus prunes nn\.Linear"):
        prunable_parameters(gpt2, EVERY)


class TestPrunableWeights:
    @pytest.mark.parametrize("auto_class", [BertForMaskedLM, BertForSequenceClassification])
    def test_bert_base_has_72_encoder_matrices_of_84934656_weights(self, auto_class: type[PreTrainedModel]) -> None:
        with torch.device("meta"):
            model = auto_class(BertConfig())
        found = prunable_parameters(model, EVERY)
        assert len(found) == 72
        assert sum(weight.numel() for weight in found.values()) == 84_934_656
        kinds = {name.split(".layer.")[1].split(".", 1)[1] for name in found}
        attention = {f"attention.{part}.weight" for part in ("self.query", "self.key", "self.value", "output.dense")}
        assert kinds == attention | {"intermediate.dense.weight", "output.dense.weight"}
        assert next(iter(found)) == "bert.encoder.layer.0.attention.self.query.weight"

    def test_parps_pool_of_wav2vec2_is_what_the_paper_prunes(self) -> None:
        """parp.md, section 1.3: 85,017,600 weights and biases of base, 302,211,072 of large."""
        large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
        for changed, expected in (({}, 85_017_600), (large, 302_211_072)):
            with torch.device("meta"):
                model = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**changed))
            found = prunable_parameters(model, Prunable(biases=True))
            assert sum(weight.numel() for weight in found.values()) == expected
        parts = {name.split(".")[-2] for name in found}
        assert parts == {"q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense"}
        names = list(found)
        assert names[:2] == [f"wav2vec2.encoder.layers.0.attention.k_proj.{kind}" for kind in ("weight", "bias")]

    def test_xlnets_attention_is_taken_though_it_is_made_of_bare_parameters(self) -> None:
        config = transformers.XLNetConfig(vocab_size=16, d_model=12, n_layer=2, n_head=3, d_inner=20)
        found = prunable_parameters(transformers.XLNetForSequenceClassification(config), EVERY)
        shapes = {
            name.removeprefix("transformer.layer.0."): tuple(w.shape) for name, w in found.items() if ".0." in name
        }
        attention = {f"rel_attn.{part}": (12, 3, 4) for part in "qkvor"}
        assert shapes == {**attention, "ff.layer_1.weight": (20, 12), "ff.layer_2.weight": (12, 20)}
        assert len(found) == 14

    def test_distilbert_and_roberta_keep_their_heads(self) -> None:
        with torch.device("meta"):
            models = [DistilBertForMaskedLM(DistilBertConfig()), RobertaForMaskedLM(RobertaConfig())]
        assert [len(prunable_parameters(model, EVERY)) for model in models] == [36, 72]
        assert all("vocab" not in n and "lm_head" not in n for m in models for n in prunable_parameters(m, EVERY))

    def test_the_parameters_are_those_of_the_model(self) -> None:
        model = tiny.bert()
        own = dict(model.named_parameters())
        assert all(weight is own[name] for name, weight in prunable_parameters(model, EVERY).items())

    def test_patterns_choose_and_leave_out(self) -> None:
        rule = Prunable(include=(r"layer\.0\.", r"intermediate"), exclude=(r"query", r"key|value"))
        assert list(prunable_parameters(tiny.bert(), rule)) == [
            "bert.encoder.layer.0.attention.output.dense.weight",
            "bert.encoder.layer.0.intermediate.dense.weight",
            "bert.encoder.layer.0.output.dense.weight",
            "bert.encoder.layer.1.intermediate.dense.weight",
        ]

    @pytest.mark.parametrize("field", ["include", "exclude"])
    def test_a_pattern_that_matches_nothing_is_an_error_with_the_names_that_exist(self, field: str) -> None:
        with pytest.raises(PruningError) as refused:
            prunable_parameters(tiny.bert(), Prunable(**{field: ("encoder", "pooler")}))
        message = str(refused.value)
        assert message.startswith(f"method.prunable.{field}: 'pooler' matches no weight; there are 12: ")
        assert "bert.encoder.layer.N.attention.self.query.weight" in message
        assert message.count("query") == 1  # layers are folded

    def test_leaving_everything_out_is_an_error(self) -> None:
        with pytest.raises(PruningError, match=r"method\.prunable leaves no weight to prune; there are 12"):
            prunable_parameters(tiny.bert(), Prunable(exclude=("layer",)))
