"""Fixtures of tests that run the real thing; torch is loaded only where one of them is asked for."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests import light_install

if TYPE_CHECKING:
    from tests.contract.gang_runs import Gangs
    from tests.tiny_inputs import TinyInputs
    from tests.tones import TinySpeech

# A busy machine is no defect of what is tested.
settings.register_profile("prunus", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("prunus")

REPOSITORY = Path(__file__).parent.parent
TESTS = REPOSITORY / "tests"
LOOPBACK = ["127.0.0.1", "::1", "localhost"]
NOT_UNIT = ("cluster", "chaos", "gpu")
"""Marks of tests that start processes with connections of their own."""


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what needs torch or Ray where neither is installed."""
    if not light_install.IS_LIGHT or TESTS not in collection_path.parents:
        return None
    name = collection_path.relative_to(TESTS).as_posix()
    return True if light_install.is_left_out(f"{name}/" if collection_path.is_dir() else name) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let unit tests connect to this machine only, and leave out what the light install cannot run."""
    left_out = []
    for item in items:
        if not any(item.get_closest_marker(name) for name in NOT_UNIT):
            item.add_marker(pytest.mark.allow_hosts(LOOPBACK))
        if light_install.IS_LIGHT and light_install.is_left_out(item.nodeid.removeprefix("tests/")):
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> "TinyInputs":
    """A tiny model, tokenizer, text and labelled rows on disk."""
    from tests.tiny_inputs import write_inputs

    return write_inputs(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> "TinySpeech":
    """A tiny wav2vec 2.0 and two languages of tones on disk."""
    from tests.tones import write_speech

    return write_speech(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="session")
def rank_environment() -> dict[str, str]:
    """Environment for processes that train on this machine: CPU, one thread, no network."""
    fixed = {
        "PYTHONPATH": str(REPOSITORY),  # for ``tests.contract.gang_server``
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return {**{k: v for k, v in os.environ.items() if not k.startswith("PRUNUS_")}, **fixed}


@pytest.fixture(scope="session")
def gangs(
    tmp_path_factory: pytest.TempPathFactory, tiny: "TinyInputs", rank_environment: dict[str, str]
) -> "Iterator[Gangs]":
    """Runs cases on real ranks: gloo, DeepSpeed, Accelerate; no Ray."""
    from tests.contract.gang_runs import Gangs

    running = Gangs(tmp_path_factory.mktemp("gangs"), tiny, rank_environment)
    yield running
    running.close()
