"""The layout against compressed-tensors, which writes and reads the same."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prunus.configs.artifacts.compact.layout import FILE_NAME
from prunus.configs.artifacts.compact.pack import to_compact
from prunus.configs.artifacts.compact.read import open_compact, read_tensor

ORACLE = """
import sys
import torch
from safetensors.torch import load_file
from compressed_tensors.compressors.sparse_compressors.sparse_bitmask import BitmaskTensor
ours, plain = sys.argv[1:]
dense = load_file(plain)
parts = load_file(ours)
for name, weight in dense.items():
    module = name.removesuffix(".weight")
    made = BitmaskTensor.from_dense(weight).dict(module)
    for part, tensor in made.items():
        assert tensor.dtype == parts[part].dtype and torch.equal(tensor, parts[part]), part
    keys = ("shape", "compressed", "bitmask", "row_offsets")
    read = BitmaskTensor(**{key: parts[f"{module}.{key}"] for key in keys}).decompress()
    assert torch.equal(read, weight), name
print("same", len(dense))
"""


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which compressed-tensors 0.14.0.1 can be imported; nothing else sees it."""
    target = tmp_path_factory.mktemp("oracle")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    installed = subprocess.run([*pip, "compressed-tensors==0.14.0.1", "loguru==0.7.3"], check=False, timeout=300)
    if installed.returncode:
        pytest.skip("compressed-tensors 0.14.0.1 cannot be installed: no package index")
    return {**os.environ, "PYTHONPATH": str(target)}


def test_compressed_tensors_writes_and_reads_the_same(tmp_path: Path, oracle: dict[str, str]) -> None:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    dense = {}
    for number, dtype in enumerate((torch.float32, torch.bfloat16, torch.float16)):
        weight = torch.randn(33, 71).to(dtype)
        weight[torch.rand(33, 71) < 0.9] = 0
        dense[f"layer.{number}.weight"] = weight
    save_file(dense, tmp_path / "plain", {"format": "pt"})
    to_compact(tmp_path / "plain", tmp_path / FILE_NAME)
    command = [sys.executable, "-c", ORACLE, str(tmp_path / FILE_NAME), str(tmp_path / "plain")]
    ended = subprocess.run(command, env=oracle, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "same 3"
    for name, weight in dense.items():
        ours = read_tensor(open_compact(tmp_path / FILE_NAME), name)
        as_int = torch.int16 if weight.element_size() == 2 else torch.int32
        assert np.array_equal(ours, weight.view(as_int).numpy().view(ours.dtype))
