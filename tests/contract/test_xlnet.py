"""XLNet as a classifier: its ``mask_emb`` has no part in the loss, its attention is made of bare parameters."""

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, XLNetConfig, XLNetForSequenceClassification

from prunus.configs import JobSpec
from tests.contract.gang_cases import BATCH_SIZE, NUM_STEPS, Case, cell
from tests.contract.gang_runs import Gangs
from tests.tiny_inputs import TinyInputs

pytestmark = pytest.mark.cluster
LAYERS, WIDTH, INNER = 2, 24, 40
NUM_PRUNABLE = LAYERS * (5 * WIDTH * WIDTH + 2 * WIDTH * INNER + INNER + WIDTH)
"""q, k, v, o, r without biases; two linear layers with them."""


@dataclass(frozen=True)
class Classifier(Case):
    """PARP on labelled lines."""

    model: str = ""

    def spec(self, tiny: TinyInputs) -> JobSpec:
        rows = {"files": [str(tiny.labelled)]}
        return JobSpec.model_validate(
            {
                "name": self.job,
                "task": {"name": "classification", "data": {"train": rows, "eval": rows, "sequence_length": 24}},
                "model": {"from": self.model},
                "method": self.method,
                "train": {"num_steps": NUM_STEPS, "batch_size": BATCH_SIZE, "micro_batch_size": 2, "lr": {"peak": 1e-3}}
                | {"log_every": 1},
                "engine": {"strategy": self.strategy},
                "resources": {"num_ranks": self.num_ranks},
            }
        )


@pytest.fixture(scope="module")
def xlnet(tiny: TinyInputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("xlnet")
    tokenizer = AutoTokenizer.from_pretrained(tiny.model)
    tokenizer.save_pretrained(place)
    torch.manual_seed(0)
    sizes = {"d_model": WIDTH, "n_layer": LAYERS, "n_head": 2, "d_inner": INNER, "dropout": 0.0}
    config = XLNetConfig(vocab_size=len(tokenizer), **sizes, summary_last_dropout=0.0)
    XLNetForSequenceClassification(config).save_pretrained(place)
    return place


@pytest.mark.parametrize(
    ("strategy", "num_ranks"), [cell(s, n, always=s == "ddp") for s, n in (("ddp", 2), ("zero2", 2), ("zero3", 2))]
)
def test_parp_on_any_gang_equals_one_rank(gangs: Gangs, xlnet: Path, strategy: str, num_ranks: int) -> None:
    method = {"name": "parp", "final_sparsity": 0.6, "update_every": 3}
    one = gangs.run(Classifier(method, "ddp", model=str(xlnet)))
    run = gangs.run(Classifier(method, strategy, num_ranks, model=str(xlnet)))
    assert "transformer.mask_emb" in one.log and "no part in the loss" in one.log
    assert "no part in the loss" not in gangs.run(Case(method, "ddp")).log  # of BERT every weight has
    for step, loss in one.losses.items():
        assert math.isclose(run.losses[step], loss, rel_tol=1e-6), f"step {step}"
    assert sum(mask.numel() for mask in one.masks.values()) == NUM_PRUNABLE
    assert sum(int((~mask).sum()) for mask in one.masks.values()) == math.floor(0.6 * NUM_PRUNABLE)
    assert all(torch.equal(run.masks[name], mask) for name, mask in one.masks.items())
    start = load_file(xlnet / "model.safetensors")
    # Biases begin as zeros, where they are the smallest of the pool.
    still = [name for name, weight in one.weights.items() if weight.any() and torch.equal(weight, start[name])]
    assert still == ["transformer.mask_emb"]
