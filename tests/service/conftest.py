"""Worlds for the tests of the scheduler and the store; see ``world``."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient
from typer.testing import CliRunner

from prunus.cluster.executor import Node
from prunus.cluster.fake import FakeExecutor
from prunus.service.cli.main import app
from prunus.service.cli.waiting import patience
from prunus.service.client import Client
from prunus.service.sources.registry import NoRegistry, Registry
from tests.service.command_line import RECIPE, Run, clock_that, serving
from tests.service.world import HOST, World, make_app


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


@pytest.fixture
def http(world: World) -> TestClient:
    """Hand-made requests over ASGI."""
    return TestClient(make_app(world), base_url=HOST, raise_server_exceptions=False)


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    """Our client over a loopback socket."""
    server = uvicorn.Server(uvicorn.Config(make_app(world), port=0, log_config=None))
    started = threading.Event()
    startup = server.startup

    async def signal(*arguments: Any, **named: Any) -> None:
        await startup(*arguments, **named)
        started.set()

    server.startup = signal  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert started.wait(20.0)
    port = server.servers[0].sockets[0].getsockname()[1]
    with Client(f"{HOST}:{port}") as opened:
        yield opened
    server.should_exit = True
    thread.join(20.0)
    assert not thread.is_alive()


@pytest.fixture
def run(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a command against ``world``; gives its result."""
    world.cluster.automatic = True
    monkeypatch.setenv("PRUNUS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(patience, "time", clock_that(world.step))
    with serving(world) as url:
        monkeypatch.setenv("PRUNUS_URL", url)
        yield lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    path = work / "recipe.yaml"
    path.write_text(RECIPE)
    return path
