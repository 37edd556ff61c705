"""Worlds for the tests of the scheduler and the store; see ``world``."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from world import World

from cluster.executor import Node
from cluster.fake import FakeExecutor
from service.sources import NoRegistry, Registry


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Build worlds; ``nodes`` and ``registry`` may be given."""
    worlds: list[World] = []

    def build(nodes: tuple[Node, ...] = (Node("node-1", 2.0, 0.0),), registry: Registry | None = None) -> World:
        home = tmp_path / f"home-{len(worlds)}"
        worlds.append(World(home, registry or NoRegistry(), cluster=FakeExecutor(nodes)))
        return worlds[-1]

    yield build
    for world in worlds:
        world.store.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """One node with two CPUs."""
    return make_world()
