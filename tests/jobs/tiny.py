"""Random models of a few thousand weights and a tokenizer of 16 words, made on the spot."""

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijk"]


def bert_config(**changed: Any) -> BertConfig:
    """Two layers of width 8; no dropout."""
    fixed = {
        "vocab_size": 16,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 12,
        "max_position_embeddings": 16,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.5,
    }
    return BertConfig(**{**fixed, **changed})


def bert(seed: int = 0, **changed: Any) -> PreTrainedModel:
    """Masked language model."""
    torch.manual_seed(seed)
    return BertForMaskedLM(bert_config(**changed))


def bert_classifier(seed: int = 0, **changed: Any) -> PreTrainedModel:
    """Three classes unless told otherwise."""
    torch.manual_seed(seed)
    return BertForSequenceClassification(bert_config(**{"num_labels": 3, **changed}))


def tokenizer(words: list[str] = WORDS) -> PreTrainedTokenizerFast:
    """Words between spaces."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip


def batch() -> dict[str, torch.Tensor]:
    """Two sequences of six tokens, the second with two of padding; three tokens are predicted."""
    return {
        "input_ids": torch.tensor([[2, 5, 4, 7, 8, 3], [2, 9, 4, 3, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]),
        "labels": torch.tensor([[-100, 12, 6, -100, -100, -100], [-100, -100, 10, -100, -100, -100]]),
    }
