"""Runs of the command line against a server on loopback, and a clock that moves by being waited for."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import uvicorn
from click.testing import Result

from prunus.service.api.app import create_app
from prunus.service.api.parts import Parts
from tests.service.world import World

Run = Callable[..., Result]

RECIPE = """\
# Two jobs, one after the other.
campaign: demo
defaults:
  task: {name: classification, data: {train: {files: [rows.csv]}, eval: {files: [rows.csv]}}}
  train: {num_steps: 10, batch_size: 8, lr: {peak: 1e-3}}
jobs:
  - name: teacher
    model: {from: org/base}
  - name: student
    model: {from: "job:teacher"}
    method: {name: gradual_magnitude, final_sparsity: 0.9}
"""


@contextlib.contextmanager
def serving(world: World, *, is_embedded: bool = False) -> Iterator[str]:
    """Answer on loopback; gives the address."""
    settings = world.settings.model_copy(update={"embedded": is_embedded})
    api = create_app(Parts(settings, world.store, world.cluster, world.registry))
    server = uvicorn.Server(uvicorn.Config(api, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def clock_that(pause: Callable[[], Any]) -> SimpleNamespace:
    """Stands in for ``time``: every pause calls ``pause`` and counts as a second."""
    seconds = [0.0]

    def sleep(_: float) -> None:
        seconds[0] += 1.0
        pause()

    return SimpleNamespace(sleep=sleep, monotonic=lambda: seconds[0], time=lambda: seconds[0])


def states(run: Run, *words: str) -> dict[str, int]:
    """Jobs of the only campaign by state, as ``prunus campaigns`` counts them."""
    return json.loads(run("campaigns", "--json", *words).stdout)[0]["counts"]
