"""Names found by the table, written by hand; and what the generic rule leaves out."""

import pytest

from prunus.configs.values.families import Place, guess_prunable, is_layer, outside_encoder, place_in
from prunus.configs.values.family_table import ALBERT, BERT, FAMILIES, LLAMA, WAV2VEC2, XLNET, family_of, place_of


@pytest.mark.parametrize(
    ("weight", "layer", "role"),
    [
        ("bert.encoder.layer.3.attention.self.query.weight", "bert.encoder.layer.3", "q"),
        ("encoder.layer.11.attention.self.key.weight", "encoder.layer.11", "k"),
        ("roberta.encoder.layer.0.attention.self.value.weight", "roberta.encoder.layer.0", "v"),
        ("bert.encoder.layer.3.attention.output.dense.weight", "bert.encoder.layer.3", "o"),
        ("bert.encoder.layer.3.intermediate.dense.weight", "bert.encoder.layer.3", "up"),
        ("bert.encoder.layer.3.output.dense.weight", "bert.encoder.layer.3", "down"),
        ("bert.encoder.layer.3.crossattention.output.dense.weight", "bert.encoder.layer.3", "other"),
        ("distilbert.transformer.layer.5.attention.out_lin.weight", "distilbert.transformer.layer.5", "o"),
        ("distilbert.transformer.layer.5.ffn.lin1.weight", "distilbert.transformer.layer.5", "up"),
        ("albert.encoder.albert_layer_groups.0.albert_layers.2.ffn.weight",
         "albert.encoder.albert_layer_groups.0.albert_layers.2", "up"),
        ("mpnet.encoder.layer.1.attention.attn.o.weight", "mpnet.encoder.layer.1", "o"),
        ("deberta.encoder.layer.1.attention.self.pos_key_proj.weight", "deberta.encoder.layer.1", "into_heads"),
        ("transformer.layer.4.rel_attn.r", "transformer.layer.4", "into_heads"),
        ("transformer.layer.4.rel_attn.q", "transformer.layer.4", "q"),
        ("transformer.layer.4.ff.layer_2.weight", "transformer.layer.4", "down"),
        ("wav2vec2.encoder.layers.7.attention.out_proj.weight", "wav2vec2.encoder.layers.7", "o"),
        ("wavlm.encoder.layers.7.feed_forward.output_dense.weight", "wavlm.encoder.layers.7", "down"),
        ("wav2vec2.adapter.proj.weight", "", "other"),
        ("model.layers.31.self_attn.o_proj.weight", "model.layers.31", "o"),
        ("model.layers.31.mlp.gate_proj.weight", "model.layers.31", "gate"),
        ("model.layers.31.mlp.up_proj.weight", "model.layers.31", "up"),
    ],
)  # fmt: skip
def test_a_weight_has_its_place(weight: str, layer: str, role: str) -> None:
    found = place_of(weight)
    assert found is not None
    assert (found.layer, found.role) == (layer, role)


@pytest.mark.parametrize(
    "weight",
    [
        "bert.pooler.dense.weight",
        "bert.embeddings.word_embeddings.weight",
        "bert.encoder.layer.3.attention.self.query.bias",
        "bert.encoder.layer.3.output.LayerNorm.weight",
        "bert.encoder.layer.x.output.dense.weight",
        "cls.predictions.transform.dense.weight",
        "classifier.out_proj.weight",
        "classifier.dense.weight",
        "albert.encoder.embedding_hidden_mapping_in.weight",
        "wavlm.encoder.layers.0.attention.gru_rel_pos_linear.weight",
        "wav2vec2.feature_projection.projection.weight",
        "wav2vec2.encoder.pos_conv_embed.conv.weight",
        "transformer.layer.4.rel_attn.q.weight",
        "transformer.layer.4.rel_attn.seg_embed",
        "lm_head.weight",
    ],
)
def test_what_is_not_pruned_has_none(weight: str) -> None:
    assert place_of(weight) is None


def test_a_family_knows_only_its_own_names() -> None:
    query = "bert.encoder.layer.0.attention.self.query.weight"
    assert place_in(BERT, query) == Place("bert.encoder.layer.0", "q")
    assert [place_in(family, query) for family in (ALBERT, XLNET, WAV2VEC2, LLAMA)] == [None] * 4


def test_layers_are_told_by_whole_words_and_numbers() -> None:
    assert is_layer(BERT, "encoder.layer.0")
    assert is_layer(BERT, "some.bert.encoder.layer.12")
    assert not is_layer(BERT, "bert.encoder.layer")
    assert not is_layer(BERT, "bert.decoder.layer.0")
    assert not is_layer(BERT, "encoder.layer.0.attention")
    assert not is_layer(ALBERT, "albert.encoder.albert_layer_groups.0")
    assert is_layer(ALBERT, "albert.encoder.albert_layer_groups.0.albert_layers.1")


def test_each_model_type_has_one_entry() -> None:
    named = [model_type for family in FAMILIES for model_type in family.model_types]
    assert len(named) == len(set(named))
    wanted = {"bert", "roberta", "electra", "distilbert", "albert", "mpnet", "deberta-v2", "xlnet", "wav2vec2",
              "hubert", "wavlm", "llama", "qwen2", "qwen3", "mistral"}  # fmt: skip
    assert wanted <= set(named)
    assert all(family_of(model_type) is not None for model_type in wanted)
    assert family_of("gpt2") is None


@pytest.mark.parametrize(
    ("name", "num_outputs", "num_inputs", "outside"),
    [
        ("encoder.block.0.layer.0.SelfAttention.q", 12, 12, False),
        ("model.layers.0.mlp.gate_proj", 20, 12, False),
        ("model.layers.0.mlp.gate", 20, 12, False),
        ("model.layers.0.mlp.gate", 8, 64, True),
        ("model.layers.0.mlp.shared_expert_gate", 1, 64, True),
        ("model.layers.0.block_sparse_moe.router.layer", 8, 64, True),
        ("esm.contact_head.regression", 1, 9, True),
        ("funnel.pooler.dense", 12, 12, True),
        ("encoder.embedding_hidden_mapping_in", 12, 6, True),
        ("embeddings_project", 12, 6, True),
        ("embedder.dense", 12, 6, False),
    ],
)
def test_the_generic_rule_leaves_out_what_is_no_layer(
    name: str, num_outputs: int, num_inputs: int, outside: bool
) -> None:
    assert outside_encoder(name, num_outputs, num_inputs) is outside


@pytest.mark.parametrize(
    ("weight", "shape", "counts"),
    [
        ("model.encoder.layers.0.fc1.weight", (20, 12), True),
        ("model.decoder.layers.0.fc1.weight", (20, 12), True),
        ("model.layers.0.block_sparse_moe.experts.0.w1.weight", (20, 12), False),
        ("model.layers.0.mlp.shared_expert_gate.weight", (1, 12), False),
        ("model.encoder.layers.0.fc1.bias", (20,), False),
        ("encoder.layer.0.norm.weight", (12, 12), False),
        ("some.encoder.decoder.weight", (30, 12), False),
        ("lm_head.weight", (30, 12), False),
    ],
)
def test_a_guess_from_a_file_takes_matrices_of_layers(weight: str, shape: tuple[int, ...], counts: bool) -> None:
    assert guess_prunable(weight, shape) is counts
