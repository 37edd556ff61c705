"""The encoders that the benchmarks use: published shapes, random weights, a small vocabulary.

The vocabulary is small on purpose: embeddings and projection are not pruned, and their cost would only hide the cost
of masks.
"""

import torch
from transformers import BertConfig, BertForSequenceClassification

VOCABULARY = 1000


def encoder(num_layers: int, hidden: int, num_heads: int) -> BertForSequenceClassification:
    """A BERT encoder with a two-class head, without dropout."""
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=4 * hidden,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=2,
    )
    torch.manual_seed(0)
    return BertForSequenceClassification(config)


def prunable(model: BertForSequenceClassification) -> dict[str, torch.nn.Parameter]:
    """The linear weights of the encoder's layers, as Prune OFA prunes them."""
    return {
        name: weight
        for name, weight in model.named_parameters()
        if ".layer." in name and name.endswith("weight") and weight.dim() == 2
    }
