"""A random model of each model type of the table of families, of two layers, width 12 and 20 units."""

from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

HIDDEN, UNITS, HEADS = 12, 20, 3
_BODY = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": UNITS}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.4}
_TEXT = _BODY | _NO_DROPOUT | {"vocab_size": 10, "max_position_embeddings": 16}
_SPEECH = _BODY | {"conv_dim": (4, 4), "conv_kernel": (2, 2), "conv_stride": (2, 2), "num_feat_extract_layers": 2,
                   "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
                   "initializer_range": 0.4}  # fmt: skip
_DECODER = _BODY | {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4, "vocab_size": 10,
                    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.4}  # fmt: skip
"""Six heads of four elements make 24, twice the width; three of them share a key and a value."""

_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", _TEXT),
    "ernie": ("Ernie", _TEXT),
    "roberta": ("Roberta", _TEXT),
    "xlm-roberta": ("XLMRoberta", _TEXT),
    "camembert": ("Camembert", _TEXT),
    "data2vec-text": ("Data2VecText", _TEXT),
    "electra": ("Electra", _TEXT | {"embedding_size": 6}),
    "distilbert": ("DistilBert", {"vocab_size": 10, "dim": HIDDEN, "n_layers": 2, "n_heads": HEADS,
                                  "hidden_dim": UNITS, "initializer_range": 0.4}),
    "albert": ("Albert", _TEXT | {"embedding_size": 6, "num_hidden_layers": 6, "num_hidden_groups": 2}),
    "mpnet": ("MPNet", _TEXT),
    "deberta-v2": ("DebertaV2", _TEXT | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"],
                                         "position_buckets": 4}),
    "xlnet": ("XLNet", {"vocab_size": 10, "d_model": HIDDEN, "n_layer": 2, "n_head": HEADS, "d_inner": UNITS,
                        "initializer_range": 0.4}),
    "wav2vec2": ("Wav2Vec2", _SPEECH),
    "unispeech": ("UniSpeech", _SPEECH),
    "unispeech-sat": ("UniSpeechSat", _SPEECH),
    "data2vec-audio": ("Data2VecAudio", _SPEECH | {"conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 2}),
    "hubert": ("Hubert", _SPEECH),
    "wavlm": ("WavLM", _SPEECH),
    "llama": ("Llama", _DECODER),
    "mistral": ("Mistral", _DECODER),
    "qwen2": ("Qwen2", {name: value for name, value in _DECODER.items() if name != "head_dim"}
              | {"num_attention_heads": 6}),
    "qwen3": ("Qwen3", _DECODER),
    "gemma": ("Gemma", _DECODER),
}  # fmt: skip
MODEL_TYPES = tuple(_CONFIGS)


def build(model_type: str, head: str = "ForSequenceClassification", **changed: Any) -> PreTrainedModel:
    """A model with random weights, ready to evaluate; ``head`` is the end of its class's name."""
    name, config = _CONFIGS[model_type]
    torch.manual_seed(0)
    made = getattr(transformers, f"{name}Config")(**{**config, **changed})
    model: PreTrainedModel = getattr(transformers, f"{name}{head}")(made)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.uniform_(-0.5, 0.5)  # transformers starts them at 0, which would hide a bias left behind
    return model.eval()


def last_hidden(model: PreTrainedModel) -> torch.Tensor:
    """Hidden states of the base model behind its last layer, for two inputs."""
    generator = torch.Generator().manual_seed(1)
    base = model.base_model
    with torch.no_grad():
        if hasattr(model.config, "conv_dim"):
            return base(input_values=torch.randn(2, 60, generator=generator)).last_hidden_state
        return base(input_ids=torch.randint(3, 10, (2, 6), generator=generator)).last_hidden_state
