"""The compact form with torch: tensors and models that come back to the bit."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zstandard
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from prunus.configs.artifacts.compact.layout import FILE_NAME
from prunus.configs.artifacts.compact.pack import pack
from prunus.configs.errors import ArtifactError
from prunus.runtime.load import load_compact, load_state
from tests.jobs import tiny

AS_INT = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    kind = AS_INT[left.element_size()]
    return left.dtype == right.dtype and torch.equal(left.reshape(-1).view(kind), right.reshape(-1).view(kind))


def sparse(model: PreTrainedModel) -> PreTrainedModel:
    """Nine of ten weights of every layer's matrices are zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embeddings" not in name:
                weight[torch.rand(weight.shape) < 0.9] = 0.0
    return model


def unpack(folder: Path, into: Path) -> Path:
    """What ``zstd -d`` would do, with the files beside the weights."""
    into.mkdir(exist_ok=True)
    for packed in folder.iterdir():
        data = zstandard.ZstdDecompressor().decompress(packed.read_bytes())
        (into / packed.name.removesuffix(".zst")).write_bytes(data)
    return into


@pytest.fixture
def both(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Saves a model and packs it: its plain directory, and one in the compact form."""

    def save(model: PreTrainedModel, **options: str) -> tuple[Path, Path]:
        model.save_pretrained(tmp_path / "model", **options)
        assert pack(tmp_path / "model", tmp_path / "compact") > 0
        compact = unpack(tmp_path / "compact", tmp_path / "out")
        for path in (tmp_path / "model").glob("*.json"):
            shutil.copy(path, compact)
        return tmp_path / "model", compact

    return save


def bert() -> PreTrainedModel:
    return sparse(tiny.bert(hidden_size=40, intermediate_size=56))


def refuse_other_weights(loaded: PreTrainedModel, expected: PreTrainedModel) -> None:
    ours, theirs = loaded.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if not same_bits(ours[name], theirs[name])] == []


DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_every_dtype_come_back_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = torch.randn(33, 71)
    weight[torch.rand(33, 71) < 0.9] = 0.0
    weight[0, :2] = torch.tensor([-0.0, float("nan")])
    tensors = {
        "a.weight": weight.to(dtype),
        "a.bias": torch.zeros(71, dtype=dtype),
        "few.weight": torch.zeros(3, 2).to(dtype),
        "positions": torch.arange(5),
        "nothing.weight": torch.zeros(0, 4).to(dtype),
        "one": torch.tensor(2.5).to(dtype),
        "flags.weight": torch.zeros(20, 20, dtype=torch.bool),
        "large": torch.tensor([2**64 - 1], dtype=torch.uint64),
        "sparse.weight": torch.eye(90, dtype=torch.int16),
    }
    (tmp_path / "model").mkdir()
    save_file(tensors, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    pack(tmp_path / "model", tmp_path / "compact")
    unpack(tmp_path / "compact", tmp_path / "torch")
    with safe_open(tmp_path / "torch" / FILE_NAME, framework="pt") as opened:
        assert {"a.bitmask", "sparse.bitmask"} <= set(opened.keys())
    state = load_state(tmp_path / "torch")
    assert state.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert state[name].shape == tensor.shape and same_bits(state[name], tensor), name
        state[name].zero_()  # its own memory, that may be written to


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_compact_directory_loads_like_the_plain_one(
    both: Callable[..., tuple[Path, Path]], dtype: torch.dtype
) -> None:
    plain, compact = both(bert().to(dtype))
    before = {path.name for path in compact.iterdir()}
    expected, loaded = (AutoModelForMaskedLM.from_pretrained(plain), load_compact(AutoModelForMaskedLM, compact))
    refuse_other_weights(loaded, expected)
    assert (loaded.dtype, loaded.training, type(loaded)) == (dtype, False, BertForMaskedLM)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert loaded.config.name_or_path == loaded.name_or_path == str(compact)
    expected.config.name_or_path = str(compact)
    assert loaded.config.to_dict() == expected.config.to_dict()
    assert {path.name for path in compact.iterdir()} == before
    refuse_other_weights(load_compact(BertForMaskedLM, compact), expected)
    if dtype is torch.float32:
        batch = tiny.batch()
        assert torch.equal(loaded(**batch).logits, expected(**batch).logits)


def test_shards_load_and_a_missing_one_is_named(both: Callable[..., tuple[Path, Path]]) -> None:
    plain, compact = both(bert(), max_shard_size="40KB")
    shards = sorted(path.name for path in compact.glob("model.sparse-*"))
    assert len(shards) > 1
    refuse_other_weights(load_compact(AutoModelForMaskedLM, compact), AutoModelForMaskedLM.from_pretrained(plain))
    with pytest.raises(OSError, match=r"model-0000"):
        AutoModelForMaskedLM.from_pretrained(compact)
    (compact / shards[1]).unlink()
    with pytest.raises(ArtifactError, match=f"lacks the shard {shards[1]}"):
        load_compact(AutoModelForMaskedLM, compact)


def test_a_model_that_generates_keeps_its_settings(both: Callable[..., tuple[Path, Path]]) -> None:
    torch.manual_seed(0)
    model = sparse(GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=16, n_embd=40, n_layer=1, n_head=2)))
    model.generation_config.max_new_tokens = 7
    plain, compact = both(model)
    loaded = load_compact(AutoModelForCausalLM, compact)
    refuse_other_weights(loaded, AutoModelForCausalLM.from_pretrained(plain))
    assert loaded.generation_config.max_new_tokens == 7


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification])
def test_transformers_alone_raises_instead_of_loading_random_weights(
    both: Callable[..., tuple[Path, Path]], auto_class: type
) -> None:
    _, compact = both(bert())
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        auto_class.from_pretrained(compact)


def test_a_class_of_other_weights_is_refused(both: Callable[..., tuple[Path, Path]]) -> None:
    _, compact = both(bert())
    with pytest.raises(ArtifactError, match=r"does not fit BertForSequenceClassification: missing keys .*classifier"):
        load_compact(AutoModelForSequenceClassification, compact)
    with pytest.raises(ArtifactError, match=r"does not fit BertModel: .*; load it with the class"):
        load_compact(AutoModel, compact)
    with pytest.raises(ArtifactError, match=r"unexpected keys cls"):
        load_compact(AutoModel, compact, add_pooling_layer=False)


@pytest.mark.parametrize("part", ["bitmask", "shape", "row_offsets"])
def test_damage_is_an_error_of_the_source(both: Callable[..., tuple[Path, Path]], part: str) -> None:
    _, compact = both(bert())
    name = f"bert.encoder.layer.0.output.dense.{part}"
    content = bytearray((compact / FILE_NAME).read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    content[8 + length + header[name]["data_offsets"][0]] ^= 1
    (compact / FILE_NAME).write_bytes(content)
    with pytest.raises(
        ArtifactError, match=r"values of bert\.encoder\.layer\.0\.output\.dense\.weight do not fit its bits"
    ):
        load_state(compact)


def test_what_is_no_compact_file_is_refused(both: Callable[..., tuple[Path, Path]], tmp_path: Path) -> None:
    plain, compact = both(bert())
    with pytest.raises(ArtifactError, match=r"holds no model\.sparse\.safetensors; bring one with `prunus fetch"):
        load_state(plain)
    with pytest.raises(ArtifactError, match="no compact checkpoint of version 1"):
        load_state(plain / "model.safetensors")
    (compact / FILE_NAME).write_bytes((compact / FILE_NAME).read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="is not a whole safetensors file"):
        load_state(compact)
