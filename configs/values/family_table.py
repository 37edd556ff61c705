"""The table of model families that prunus knows, after the sources of transformers 5.23."""

from dataclasses import replace

from prunus.configs.values.families import Family, Fields, Place, place_in

_TABLES = ("embeddings.word_embeddings", "embeddings.position_embeddings", "embeddings.token_type_embeddings")
_CROSS_ATTENTION = ("self.query", "self.key", "self.value", "output.dense")

BERT = Family(
    model_types=("bert", "ernie"),
    base="bert",
    layer="encoder.layer.{i}",
    q="attention.self.query",
    k="attention.self.key",
    v="attention.self.value",
    o="attention.output.dense",
    up="intermediate.dense",
    down="output.dense",
    other=tuple(f"crossattention.{name}" for name in _CROSS_ATTENTION),
    attention_norm="attention.output.LayerNorm",
    ffn_norm="output.LayerNorm",
    embeddings=_TABLES,
    base_norms=("embeddings.LayerNorm",),
)
ROBERTA = replace(BERT, model_types=("roberta", "xlm-roberta", "camembert"), base="roberta")
DATA2VEC_TEXT = replace(BERT, model_types=("data2vec-text",), base="data2vec_text")
ELECTRA = replace(BERT, model_types=("electra",), base="electra", embedding_projection="embeddings_project")
DISTILBERT = Family(
    model_types=("distilbert",),
    base="distilbert",
    layer="transformer.layer.{i}",
    q="attention.q_lin",
    k="attention.k_lin",
    v="attention.v_lin",
    o="attention.out_lin",
    up="ffn.lin1",
    down="ffn.lin2",
    attention_norm="sa_layer_norm",
    ffn_norm="output_layer_norm",
    embeddings=_TABLES[:2],
    base_norms=("embeddings.LayerNorm",),
    fields=Fields("n_layers", "n_heads", hidden_size="dim", intermediate_size="hidden_dim"),
)
ALBERT = Family(
    model_types=("albert",),
    base="albert",
    layer="encoder.albert_layer_groups.{group}.albert_layers.{i}",
    q="attention.query",
    k="attention.key",
    v="attention.value",
    o="attention.dense",
    up="ffn",
    down="ffn_output",
    attention_norm="attention.LayerNorm",
    ffn_norm="full_layer_layer_norm",
    embeddings=_TABLES,
    embedding_projection="encoder.embedding_hidden_mapping_in",
    base_norms=("embeddings.LayerNorm",),
    shares_layers=True,
)
MPNET = Family(
    model_types=("mpnet",),
    base="mpnet",
    layer="encoder.layer.{i}",
    q="attention.attn.q",
    k="attention.attn.k",
    v="attention.attn.v",
    o="attention.attn.o",
    up="intermediate.dense",
    down="output.dense",
    attention_norm="attention.LayerNorm",
    ffn_norm="output.LayerNorm",
    embeddings=_TABLES[:2],
    base_norms=("embeddings.LayerNorm",),
)
DEBERTA_V2 = Family(
    model_types=("deberta-v2",),
    base="deberta",
    layer="encoder.layer.{i}",
    q="attention.self.query_proj",
    k="attention.self.key_proj",
    v="attention.self.value_proj",
    o="attention.output.dense",
    into_heads=("attention.self.pos_key_proj", "attention.self.pos_query_proj"),
    up="intermediate.dense",
    down="output.dense",
    attention_norm="attention.output.LayerNorm",
    ffn_norm="output.LayerNorm",
    embeddings=(*_TABLES, "encoder.rel_embeddings"),
    embedding_projection="embeddings.embed_proj",
    base_norms=("embeddings.LayerNorm", "encoder.LayerNorm"),
)
XLNET = Family(
    model_types=("xlnet",),
    base="transformer",
    layer="layer.{i}",
    q="rel_attn.q",
    k="rel_attn.k",
    v="rel_attn.v",
    o="rel_attn.o",
    into_heads=("rel_attn.r",),
    attention_storage="bare",
    up="ff.layer_1",
    down="ff.layer_2",
    attention_norm="rel_attn.layer_norm",
    ffn_norm="ff.layer_norm",
    per_head=(
        ("rel_attn.r_w_bias", 0),
        ("rel_attn.r_r_bias", 0),
        ("rel_attn.r_s_bias", 0),
        ("rel_attn.seg_embed", 1),
    ),
    embeddings=("word_embedding",),
    fields=Fields("n_layer", "n_head", hidden_size="d_model", intermediate_size="d_inner"),
)
WAV2VEC2 = Family(
    model_types=("wav2vec2",),
    base="wav2vec2",
    layer="encoder.layers.{i}",
    q="attention.q_proj",
    k="attention.k_proj",
    v="attention.v_proj",
    o="attention.out_proj",
    up="feed_forward.intermediate_dense",
    down="feed_forward.output_dense",
    other=("adapter_layer.linear_1", "adapter_layer.linear_2"),
    beside_layers=("adapter.proj",),
    attention_norm="layer_norm",
    ffn_norm="final_layer_norm",
    embeddings=(),
    embedding_projection="feature_projection.projection",
    base_norms=("encoder.layer_norm",),
)
UNISPEECH = replace(WAV2VEC2, model_types=("unispeech",), base="unispeech")
UNISPEECH_SAT = replace(WAV2VEC2, model_types=("unispeech-sat",), base="unispeech_sat")
DATA2VEC_AUDIO = replace(WAV2VEC2, model_types=("data2vec-audio",), base="data2vec_audio")
HUBERT = replace(WAV2VEC2, model_types=("hubert",), base="hubert")
WAVLM = replace(
    WAV2VEC2,
    model_types=("wavlm",),
    base="wavlm",
    per_head=(("attention.gru_rel_pos_const", 1), ("attention.rel_attn_embed.weight", 1)),
)
LLAMA = Family(
    model_types=("llama", "mistral", "qwen2", "qwen3", "gemma"),
    base="model",
    layer="layers.{i}",
    q="self_attn.q_proj",
    k="self_attn.k_proj",
    v="self_attn.v_proj",
    o="self_attn.o_proj",
    up="mlp.up_proj",
    gate="mlp.gate_proj",
    down="mlp.down_proj",
    attention_norm="input_layernorm",
    ffn_norm="post_attention_layernorm",
    embeddings=("embed_tokens",),
    base_norms=("norm",),
    fields=Fields(num_kv_heads="num_key_value_heads", head_size="head_dim"),
)

FAMILIES = (
    BERT, ROBERTA, DATA2VEC_TEXT, ELECTRA, DISTILBERT, ALBERT, MPNET, DEBERTA_V2, XLNET,
    WAV2VEC2, UNISPEECH, UNISPEECH_SAT, DATA2VEC_AUDIO, HUBERT, WAVLM, LLAMA,
)  # fmt: skip
_BY_MODEL_TYPE = {model_type: family for family in FAMILIES for model_type in family.model_types}


def family_of(model_type: str) -> Family | None:
    """The entry of a model type; None if the table has none."""
    return _BY_MODEL_TYPE.get(model_type)


def place_of(weight: str) -> Place | None:
    """Find the place of a weight in whichever family has one of that name; None if no family has."""
    places = (place_in(family, weight) for family in FAMILIES)
    return next((place for place in places if place is not None), None)
