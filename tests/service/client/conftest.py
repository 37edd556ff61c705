"""An artifact on a server, and a fetch of it."""

from collections.abc import Callable, Iterator

import pytest

from prunus.service.client import Client
from prunus.service.client.fetch import Fetched, fetch
from tests.service.artifact_server import ArtifactServer, serving

BIG = bytes(range(256)) * 4096

FILES = {
    "model/config.json": b'{"hidden_size": 8}',
    "model/model.safetensors": BIG,
    "masks/step-10/mask.safetensors": b"mask bits",
    "figures/sparsity.png": b"a picture",
}

Fetch = Callable[..., Fetched]


@pytest.fixture
def server() -> ArtifactServer:
    return ArtifactServer(FILES)


@pytest.fixture
def get(server: ArtifactServer) -> Iterator[Fetch]:
    pauses: list[float] = []
    with serving(server) as url, Client(url) as client:
        yield lambda dest, **options: fetch(client, "prune", dest, pause=pauses.append, **options)
