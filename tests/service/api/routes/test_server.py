"""Health of the server."""

from starlette.testclient import TestClient

from prunus.service.api.app import create_app
from prunus.service.api.parts import Parts
from tests.service.world import HOST, World


def test_the_server_is_not_ready_without_its_scheduler(world: World) -> None:
    parts = Parts(
        settings=world.settings,
        store=world.store,
        executor=world.cluster,
        registry=world.registry,
        ready=lambda: False,
    )
    http = TestClient(create_app(parts), base_url=HOST)
    assert (http.get("/healthz").status_code, http.get("/readyz").status_code) == (200, 503)
