"""What real runs in tests start from, made offline: a BERT of 2 layers, its tokenizer, text, labelled rows.

Sizes are odd on purpose: 24 x 24 and 24 x 40 do not divide by 2, 3 or 8 evenly once flattened and sharded.
"""

import pydoc_data.topics
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertTokenizerFast

SPARSE_SHARE = 0.75
"""Sparsity of every prunable tensor of ``TinyInputs.sparse``; 24 x 24 and 24 x 40 are divisible by 4."""


@dataclass(frozen=True)
class TinyInputs:
    """Where the files lie."""

    root: Path

    @property
    def model(self) -> Path:
        """Dense masked language model with tokenizer."""
        return self.root / "model"

    @property
    def sparse(self) -> Path:
        """The same with its smallest weights zero, as a plain directory: no mask file, no manifest."""
        return self.root / "sparse"

    @property
    def stranger(self) -> Path:
        """A model with another vocabulary."""
        return self.root / "stranger"

    @property
    def classifier(self) -> Path:
        """A classifier of the classes long and short."""
        return self.root / "classifier"

    @property
    def text(self) -> Path:
        """Lines of real English, 60 kB."""
        return self.root / "text.txt"

    @property
    def labelled(self) -> Path:
        """Columns text and label: is the line long or short?"""
        return self.root / "lines.tsv"


def write_inputs(root: Path) -> TinyInputs:
    """Make everything below ``root``; equal bytes each time."""
    inputs = TinyInputs(root)
    lines = [line.strip() for text in pydoc_data.topics.topics.values() for line in text.split("\n")]
    lines = [line for line in lines if len(line) > 30 and "\t" not in line]
    inputs.text.write_text("\n".join(lines[:1000]) + "\n", encoding="utf-8")
    rows = [f"{line}\t{'long' if len(line) > 60 else 'short'}" for line in lines[:400]]
    inputs.labelled.write_text("text\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    words = sorted({word for line in lines for word in re.findall(r"[a-z]+", line.lower())})
    tokenizer = _tokenizer(words[:300], root)
    _tokenizer(words[300:500], root).save_pretrained(inputs.stranger)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=64,
    )
    dense = BertForMaskedLM(config)
    for place in (inputs.model, inputs.sparse, inputs.classifier):
        tokenizer.save_pretrained(place)
    dense.save_pretrained(inputs.model)
    names = {"id2label": {0: "long", 1: "short"}, "label2id": {"long": 0, "short": 1}}
    BertForSequenceClassification(BertConfig(**{**config.to_dict(), **names})).save_pretrained(inputs.classifier)
    with torch.no_grad():
        for name, weight in dense.named_parameters():
            if is_prunable(name):
                threshold = weight.abs().flatten().sort().values[int(SPARSE_SHARE * weight.numel())]
                weight[weight.abs() < threshold] = 0.0
    dense.save_pretrained(inputs.sparse)
    other = BertConfig(**{**config.to_dict(), "vocab_size": len(BertTokenizerFast.from_pretrained(inputs.stranger))})
    BertForMaskedLM(other).save_pretrained(inputs.stranger)
    return inputs


def is_prunable(name: str) -> bool:
    """Linear weights of the encoder's layers, said independently of ``jobs.models.load``."""
    return ".encoder.layer." in name and name.endswith(".weight") and "LayerNorm" not in name


def _tokenizer(words: list[str], root: Path) -> BertTokenizerFast:
    letters = [chr(ord("a") + i) for i in range(26)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    entries = [*special, *letters, *(f"##{letter}" for letter in letters), *words]
    folder = root / "vocabulary"
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(entries)), encoding="utf-8")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    shutil.rmtree(folder)
    return tokenizer
