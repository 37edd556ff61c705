"""A tokenizer small enough to work by hand, specs, and ranks of a gang in one process."""

from collections.abc import Callable
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from prunus.configs import JobSpec
from prunus.jobs.ranks import Ranks
from tests.jobs.lone_rank import make_ranks

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Words are letters: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, a 5, b 6, ... z 30."""
    vocab = {word: number for number, word in enumerate([*SPECIAL, *ascii_lowercase])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backend.enable_truncation(4)  # as saved by some packages: must have no effect
    backend.enable_padding(length=50)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@pytest.fixture
def ranks() -> Callable[..., Ranks]:
    return make_ranks


@pytest.fixture
def make_spec() -> Callable[..., JobSpec]:
    def make(task: dict[str, Any], *, batch_size: int = 4, world_size: int = 1, **train: Any) -> JobSpec:
        return JobSpec.model_validate(
            {
                "name": "j",
                "task": task,
                "model": {"from": "some/model"},
                "train": {"num_steps": 5, "batch_size": batch_size, "lr": {"peak": 1e-3}, "seed": 7, **train},
                "resources": {"num_ranks": world_size},
            }
        )

    return make


@pytest.fixture
def masked_lm(make_spec: Callable[..., JobSpec]) -> Callable[..., JobSpec]:
    def make(train: Path | dict[str, Any], eval_file: Path | None = None, **options: Any) -> JobSpec:
        data = {"sequence_length": 8, "train": train if isinstance(train, dict) else {"files": [str(train)]}}
        if eval_file is not None:
            data["eval"] = {"files": [str(eval_file)]}
        for key in ("streaming", "max_eval_sequences", "text_column", "sequence_length"):
            if key in options:
                data[key] = options.pop(key)
        return make_spec({"name": "masked_lm", "data": data}, **options)

    return make


@pytest.fixture
def classification(make_spec: Callable[..., JobSpec]) -> Callable[..., JobSpec]:
    def make(train: Path, eval_file: Path, labels: tuple[str, ...] = (), **options: Any) -> JobSpec:
        data: dict[str, Any] = {
            "sequence_length": 8,
            "train": {"files": [str(train)]},
            "eval": {"files": [str(eval_file)]},
        }
        for key in ("streaming", "text_column", "pair_column", "label_column"):
            if key in options:
                data[key] = options.pop(key)
        return make_spec({"name": "classification", "data": data, "labels": labels}, **options)

    return make


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """23 lines of 3 to 7 letters, all different."""
    lines = [" ".join(ascii_lowercase[(i * 5 + j) % 26] for j in range(3 + i % 5)) for i in range(23)]
    path = tmp_path / "letters.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
