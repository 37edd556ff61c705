"""What a request must pass before a route sees it."""

import httpx
import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from prunus.service.client import Client
from prunus.service.errors import Unauthorized
from tests.service.api.test_app import body
from tests.service.world import HOST, World, make_app


def test_a_body_over_16_mebibytes_is_refused(http: TestClient) -> None:
    for content in (b" " * (16 * 1024 * 1024 + 1), (b" " * 1024 * 1024 for _ in range(17))):
        answer = http.post("/v1/campaigns", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 413


def test_with_a_token_every_route_but_the_health_checks_asks_for_it(world: World) -> None:
    app = make_app(world, token=SecretStr("s3cret"))
    http = TestClient(app, base_url=HOST)
    for wrong in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic s3cret"},
        {"authorization": "s3cret"},
    ):
        for path in ("/v1/info", "/v1/jobs", "/openapi.json", "/v1/artifacts?source=job:a"):
            assert http.get(path, headers=wrong).status_code == 401
        assert http.post("/v1/campaigns", content=body("a"), headers=wrong).status_code == 401
    assert http.get("/v1/info", headers={"authorization": "Bearer s3cret"}).status_code == 200
    assert http.get("/healthz").status_code == http.get("/readyz").status_code == 200
    assert world.store.jobs() == []


def test_the_client_carries_its_token(world: World) -> None:
    app = make_app(world, token=SecretStr("s3cret"))

    def over_asgi(request: httpx.Request) -> httpx.Response:
        answer = TestClient(app, base_url=HOST).request(
            request.method, str(request.url), headers={"authorization": request.headers.get("authorization", "")}
        )
        return httpx.Response(answer.status_code, content=answer.content, headers={"content-type": "application/json"})

    with Client(HOST, "s3cret", transport=httpx.MockTransport(over_asgi)) as right:
        assert right.jobs() == []
    with Client(HOST, "wrong", transport=httpx.MockTransport(over_asgi)) as wrong, pytest.raises(Unauthorized):
        wrong.jobs()


def test_pages_of_other_origins_and_other_host_names_are_refused(http: TestClient, world: World) -> None:
    foreign = {"origin": "http://evil.example", "content-type": "application/json"}
    assert http.post("/v1/campaigns", content=body("a"), headers=foreign).status_code == 403
    assert http.get("/v1/jobs", headers={"host": "evil.example"}).status_code == 400
    assert world.store.jobs() == []
    own = {"origin": HOST, "content-type": "application/json"}
    assert http.post("/v1/campaigns", content=body("a"), headers=own).status_code == 200
