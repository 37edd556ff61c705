"""The full state of a job on disk: weights, optimizer, masks, method, data position, random numbers.

Commit: every rank writes into ``step-N.<attempt>.tmp`` -> rank 0 digests all files into ``manifest.json`` -> fsync ->
rename to ``step-N`` -> ``latest`` -> older ones are deleted. A cut at any point leaves the former checkpoint whole.
The directory aside needs a name that all ranks know, and is committed by one of them after all have written: that is
why ``directory_aside`` is not used.
Files of DeepSpeed are pickles: they are loaded only after their digests match the manifest that we wrote.
"""

import errno
import json
import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from prunus.configs.artifacts.atomic_write import commit, write_atomic
from prunus.configs.artifacts.manifest import MANIFEST, build_entries, sha256_file
from prunus.configs.artifacts.mask_file import Facts
from prunus.jobs.engine.engine import Engine
from prunus.jobs.engine.shards import MOMENTS
from prunus.jobs.errors import CheckpointError, StorageError
from prunus.jobs.methods import Method
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity import mask_store
from prunus.jobs.sparsity.masked_weights import MaskedWeights

log = logging.getLogger(__name__)
LATEST = "latest"
_ADVICE = {errno.ENOSPC: "the disk is full; free space and submit again", errno.EDQUOT: "the quota is used up"}


def save(
    root: Path,
    step: int,
    *,
    attempt_id: str,
    engine: Engine,
    weights: MaskedWeights | None,
    method: Method[Any],
    progress: dict[str, Any],
    facts: dict[str, Any],
    keep: int,
) -> Path:
    """Write and commit the state after ``step`` optimizer steps (collective).

    Args:
        root: ``checkpoints/`` of the job.
        progress: Where the loop is: position of a streamed data set, history of the mask updates; plain values.
        facts: What must be equal to resume (world size, strategy, ...).
        keep: Newest checkpoints kept.

    Raises:
        StorageError: A rank could not write; what was committed before is untouched.
    """
    ranks = engine.ranks
    aside, final = root / f"step-{step}.{attempt_id}.tmp", root / f"step-{step}"
    # Rank 0 decides for all (a shared file system may not look the same to everyone). A damaged one is written anew.
    if ranks.gather(ranks.is_main and final.is_dir() and not _damage(final))[0]:
        return final
    _together(ranks, lambda: _prepare(aside) if ranks.is_main else None, aside)
    _together(ranks, lambda: _write_rank(aside, engine, weights, method, progress), aside)
    _together(ranks, lambda: _commit(aside, final, step, facts, keep) if ranks.is_main else None, aside)
    return final


def _together(ranks: Ranks, act: Callable[[], None], aside: Path) -> None:
    """Run on all ranks; if one fails, all raise, and what lies aside is removed."""
    problem: str | None = None
    try:
        act()
    except (OSError, RuntimeError, SafetensorError) as error:
        if not is_storage_failure(error):
            raise
        full = "No space left" in str(error)
        number = errno.ENOSPC if full else getattr(error, "errno", None)
        advice = _ADVICE.get(number or 0, "check that the storage has space and can be reached")
        problem = f"rank {ranks.rank} could not write a checkpoint to {aside.parent}: {error}; {advice}"
    problems = [p for p in ranks.gather(problem) if p]
    if problems:
        if ranks.is_main:
            shutil.rmtree(aside, ignore_errors=True)
        raise StorageError(problems[0] + ". The last committed checkpoint is whole")


def is_storage_failure(error: Exception) -> bool:
    """A failed write is a RuntimeError in torch's zip writer and an error of safetensors' own; both without errno."""
    words = ("PytorchStreamWriter", "inline_container", "file write", "No space left", "I/O error")
    return isinstance(error, OSError) or any(word in str(error) for word in words)


def _prepare(aside: Path) -> None:
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)


def _write_rank(
    aside: Path, engine: Engine, weights: MaskedWeights | None, method: Method[Any], progress: dict[str, Any]
) -> None:
    engine.save(aside)
    state = {"random": random_state(), "method": method.state_dict(), "progress": progress}
    if weights is not None:
        state["weights"] = weights.state
    torch.save(state, aside / f"rank-{engine.ranks.rank}.pt")
    if weights is not None and engine.ranks.is_main:
        mask_store.save(weights.masks, aside, Facts(method.spec.name, 0, method.pattern))


def _commit(aside: Path, final: Path, step: int, facts: dict[str, Any], keep: int) -> None:
    files = {name: entry.model_dump() for name, entry in build_entries(aside).items()}
    write_atomic(aside / MANIFEST, json.dumps({"step": step, "facts": facts, "files": files}, indent=1))
    shutil.rmtree(final, ignore_errors=True)  # only ever a damaged one
    for left in final.parent.glob("step-*.tmp"):  # of attempts that died while writing
        if left != aside:
            shutil.rmtree(left, ignore_errors=True)
    commit(aside, final, fsync=True)
    write_atomic(final.parent / LATEST, f"{final.name}\n")
    steps = sorted(committed_steps(final.parent))
    for old in steps[:-keep]:
        shutil.rmtree(final.parent / f"step-{old}", ignore_errors=True)


def committed_steps(root: Path) -> list[int]:
    """Steps of the checkpoints that were renamed into place."""
    names = (path.name.removeprefix("step-") for path in root.glob("step-*") if not path.name.endswith(".tmp"))
    return [int(name) for name in names if name.isdigit()]


def find(root: Path, facts: dict[str, Any]) -> tuple[Path, int] | None:
    """Return the newest whole checkpoint and its step; None if there is none.

    A damaged one is passed over with a warning, as long as an older one is whole.

    Raises:
        CheckpointError: Checkpoints exist but none is whole, or the newest whole one was written by another layout.
    """
    steps = sorted(committed_steps(root), reverse=True) if root.is_dir() else []
    damaged = []
    for step in steps:
        directory = root / f"step-{step}"
        problem = _damage(directory)
        if problem:
            log.warning("checkpoint %s is passed over: %s", directory.name, problem)
            damaged.append(f"{directory}: {problem}")
            continue
        written = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))["facts"]
        for key, value in facts.items():
            if written.get(key) != value:
                raise CheckpointError(
                    f"checkpoint {directory} was written with {key} = {written.get(key)!r}, this job has {value!r}; "
                    "resume with the same, or submit it under another name to start afresh"
                )
        return directory, step
    if damaged:
        raise CheckpointError(
            f"no checkpoint is whole: {'; '.join(damaged)}. To start from step 0, remove {root}; the job will not do "
            "so by itself"
        )
    return None


def _damage(directory: Path) -> str:
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        for name, entry in manifest["files"].items():
            path = directory / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != entry["size"] or sha256_file(path) != entry["sha256"]:
                return f"{name} differs from its digest"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its manifest cannot be read ({error})"
    return ""


def load(directory: Path, *, engine: Engine, weights: MaskedWeights | None, method: Method[Any]) -> dict[str, Any]:
    """Restore everything from a verified checkpoint (collective); returns the progress that was saved."""
    engine.load(directory)
    state = torch.load(directory / f"rank-{engine.ranks.rank}.pt", map_location="cpu", weights_only=True)
    if weights is not None:
        # Without the entry it was written by an older release, whose masks always held both moments.
        held = {"held": state.get("held", True), "dead": list(MOMENTS)}
        weights.restore(mask_store.load(directory), state.get("weights", held))
    method.load_state_dict(state["method"])
    set_random_state(state["random"])
    progress: dict[str, Any] = state["progress"]
    return progress


def random_state() -> dict[str, Any]:
    """State of every random generator of this process, as tensors and plain values."""
    legacy: Any = np.random.get_state()
    version, keys, position, has_gauss, cached = legacy
    return {
        "python": json.dumps(random.getstate()),
        "numpy": [version, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what ``random_state`` gave."""
    version, internal, gauss = json.loads(state["python"])
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
