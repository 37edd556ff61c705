"""The compact form of a 90% BERT-base against what else one would write: bits per weight, seconds, bit-exactness.

The 72 matrices of the encoder alone (84.9M weights, normal values, 90% of each removed by magnitude), because what is
dense beside them is the same in every form. CSR has int32 columns and row pointers, as tensors in safetensors. Times
are of one thread, reading from the page cache. Run: ``python -m benchmarks.sparse_file [--layers N] [--json FILE]``.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import zstandard
from safetensors.torch import load_file, save_file

from benchmarks.timing import machine
from prunus.configs.artifacts.compact.pack import pack, to_compact
from prunus.configs.artifacts.compact.read import load_sparse
from prunus.runtime.load import load_state

HIDDEN, INNER = 768, 3072


def main() -> None:
    """Print one Markdown table per dtype."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    figures: dict[str, Any] = {"machine": machine()}
    for dtype in (torch.float32, torch.bfloat16):
        with tempfile.TemporaryDirectory(prefix="prunus-bench-") as folder:
            figures[str(dtype)] = _table(_weights(arguments.layers, dtype), Path(folder))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def _weights(num_layers: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(HIDDEN, HIDDEN)] * 4 + [(INNER, HIDDEN), (HIDDEN, INNER)]
    weights = {}
    for layer in range(num_layers):
        for place, shape in enumerate(shapes):
            weight = torch.randn(shape, generator=generator) * 0.02
            threshold = weight.abs().view(-1).kthvalue(int(0.9 * weight.numel())).values
            weights[f"layer.{layer}.{place}.weight"] = weight.masked_fill_(weight.abs() <= threshold, 0.0).to(dtype)
    return weights


def _table(weights: dict[str, torch.Tensor], folder: Path) -> dict[str, Any]:
    numel = sum(weight.numel() for weight in weights.values())
    (folder / "model").mkdir()
    (folder / "small").mkdir()
    plain, small = folder / "model" / "model.safetensors", folder / "small" / "model.sparse.safetensors"
    packed = folder / "compact" / f"{small.name}.zst"
    zipped, csr = folder / "plain.zst", folder / "csr.safetensors"
    write = {
        "plain safetensors": lambda: save_file(weights, plain),
        "plain, zstd-3": lambda: zipped.write_bytes(zstandard.compress(plain.read_bytes(), 3)),
        "CSR, int32": lambda: save_file(_csr(weights), csr),
        "compact (ours)": lambda: to_compact(plain, small),
        "compact, zstd-3 (ours)": lambda: pack(plain.parent, packed.parent),
    }
    read: dict[str, Callable[[], Any]] = {
        "plain safetensors": lambda: {name: tensor.clone() for name, tensor in load_file(plain).items()},
        "plain, zstd-3": lambda: zstandard.decompress(zipped.read_bytes(), plain.stat().st_size),
        "CSR, int32": lambda: _from_csr(load_file(csr), weights),
        "compact (ours)": lambda: load_state(small),
        "compact, zstd-3 (ours)": lambda: zstandard.decompress(packed.read_bytes()),
    }
    files = dict(zip(write, (plain, zipped, csr, small, packed), strict=True))
    print(f"\n{numel / 1e6:.1f}M weights, {next(iter(weights.values())).dtype}, 90% removed\n")
    print("| form | bits a weight | to plain | write, s | read, s |\n|---|---|---|---|---|")
    figures = {}
    for name, file in files.items():
        write_s, read_s = _best(write[name], folder / "compact" if file is packed else None), _best(read[name])
        bits, share = 8 * file.stat().st_size / numel, plain.stat().st_size / file.stat().st_size
        print(f"| {name} | {bits:.2f} | 1/{share:.1f} | {write_s:.2f} | {read_s:.2f} |", flush=True)
        figures[name] = {"bits_per_weight": bits, "write_s": write_s, "read_s": read_s}
    state = load_state(small)
    assert all(torch.equal(state[name], weight) for name, weight in weights.items()), "not bit-exact"
    arrays_s = _best(lambda: load_sparse(small))
    print(f"\nBit-exact. `load_sparse` (NumPy): {arrays_s:.2f} s.")
    return {**figures, "load_sparse_s": arrays_s}


def _csr(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, weight in weights.items():
        sparse = weight.to_sparse_csr()
        tensors[f"{name}.values"] = sparse.values()
        tensors[f"{name}.columns"] = sparse.col_indices().int()
        tensors[f"{name}.rows"] = sparse.crow_indices().int()
    return tensors


def _from_csr(tensors: dict[str, torch.Tensor], like: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: torch.sparse_csr_tensor(
            *(tensors[f"{name}.{part}"] for part in ("rows", "columns", "values")), size=weight.shape
        ).to_dense()
        for name, weight in like.items()
    }


def _best(work: Callable[[], object], clear: Path | None = None) -> float:
    """CPU seconds of the best of three; ``clear`` is emptied before each."""
    best = float("inf")
    for _ in range(3):
        for file in clear.iterdir() if clear and clear.is_dir() else ():
            file.unlink()
        if clear and clear.is_dir():
            clear.rmdir()
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


if __name__ == "__main__":
    main()
