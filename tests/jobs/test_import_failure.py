"""A rank whose libraries cannot be imported says what to do, by hand and in a gang."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prunus.configs import JobSpec, Launch, RankError, StopReason
from prunus.configs.artifacts.layout import JobDirectory
from prunus.jobs.by_hand import launch_by_hand
from prunus.jobs.failures import classify
from prunus.jobs.import_failure import report_import_failure, unloadable_torchaudio

REAL = "Could not load this library: /site/torchaudio/lib/_torchaudio.abi3.so"
"""The words of torch.ops.load_library."""
SPEC = JobSpec.model_validate(
    {
        "name": "j",
        "task": {"name": "masked_lm", "data": {"sequence_length": 8, "train": {"files": ["/text.txt"]}}},
        "model": {"from": "some/model"},
        "train": {"num_steps": 5, "batch_size": 4, "lr": {"peak": 1e-3}, "seed": 7},
    }
)


def raised_as_transformers_does() -> BaseException:
    """torchaudio's error as the cause of another."""
    try:
        try:
            raise OSError(REAL)
        except OSError as cause:
            raise ModuleNotFoundError("Could not import module 'BertModel'") from cause
    except ModuleNotFoundError as error:
        return error


@pytest.mark.parametrize("error", [OSError(REAL), raised_as_transformers_does()])
def test_an_unloadable_torchaudio_is_told_with_its_remedy(error: Exception) -> None:
    problem = classify(error)
    assert (problem.reason, problem.retryable) == (StopReason.USER_ERROR, False)
    assert "run `prunus doctor --repair`" in str(problem)


@pytest.mark.parametrize("error", [OSError("Could not load this library: /site/other.so"), ImportError("torchaudio")])
def test_other_failures_are_not_taken_for_it(error: Exception) -> None:
    assert unloadable_torchaudio(error) is None


BROKEN = f"raise OSError({REAL!r})\n"


def environment_with_broken_torchaudio(folder: Path) -> dict[str, str]:
    (folder / "torchaudio").mkdir()
    (folder / "torchaudio/__init__.py").write_text(BROKEN)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "DS_ACCELERATOR": "cpu"}


def test_by_hand_it_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "prunus.jobs", "spec.yaml", "out"]
    environ = environment_with_broken_torchaudio(tmp_path)
    run = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("prunus: torchaudio's compiled parts do not load") and "prunus doctor --repair" in last
    assert "Traceback" not in run.stderr


def test_in_a_gang_the_driver_finds_it(tmp_path: Path) -> None:
    launch = launch_by_hand(SPEC, tmp_path / "job")
    (tmp_path / "launch.json").write_text(launch.model_dump_json())
    code = f"from prunus.cluster.worker import run_rank; run_rank({{'launch': {str(tmp_path / 'launch.json')!r}}})"
    environ = environment_with_broken_torchaudio(tmp_path) | {"RANK": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 1
    record = rank_error(launch, rank=1)
    assert (record.rank, record.reason, record.retryable) == (1, StopReason.USER_ERROR, False)
    assert "prunus doctor --repair" in record.message


def test_a_failure_that_cannot_be_explained_leaves_no_word(tmp_path: Path) -> None:
    launch = launch_by_hand(SPEC, tmp_path / "job")
    report_import_failure(launch, ImportError("no module named torch"))
    assert not JobDirectory(launch.job_dir).rank_error(launch.attempt, 0).exists()


def rank_error(launch: Launch, rank: int) -> RankError:
    path = JobDirectory(launch.job_dir).rank_error(launch.attempt, rank)
    return RankError.model_validate_json(path.read_text(encoding="utf-8"))
