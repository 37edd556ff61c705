"""A recipe of many jobs."""

from pathlib import Path

import pytest

from prunus.cluster.executor import Node
from tests.service.world import World

MATRIX = """\
# One job per language.
campaign: grid
max_parallel: 4
matrix: {language: [es, fr, it, ky, nl, ru, sv, tr, tt, zh], seed: [1, 2, 3, 4, 5]}
jobs:
  - name: ctc
    task: {name: classification, data: {train: {files: [rows.csv]}, eval: {files: [rows.csv]}}}
    model: {from: org/base}
    train: {num_steps: 10, batch_size: 8, lr: {peak: 1e-3}}
"""


@pytest.fixture
def matrix(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A campaign of 50 jobs, four at a time; the cluster has room for more."""
    world.cluster.nodes = (Node("n1", 32.0, 0.0),)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "grid.yaml"
    path.write_text(MATRIX)
    return path
