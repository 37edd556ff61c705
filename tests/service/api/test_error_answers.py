"""Every error is a problem with its status."""

import json

import httpx
import pytest
from starlette.testclient import TestClient

from prunus.service.client import Client
from prunus.service.errors import NotFound, Refused, Unreachable
from tests.service.api.test_app import body
from tests.service.world import HOST, World, make_campaign, make_spec


def test_errors_arrive_as_the_classes_they_were(client: Client) -> None:
    with pytest.raises(NotFound, match="no job 'nope'"):
        client.job("nope")
    with pytest.raises(NotFound, match="no campaign 'nope'"):
        client.jobs(campaign="nope")
    with pytest.raises(Refused, match="job:nope"):
        client.submit(make_campaign(make_spec("a", "job:nope")))
    with pytest.raises(Refused, match="limit"):
        client.jobs(limit=0)


def test_no_server_is_unreachable_with_the_remedy() -> None:
    with Client("http://127.0.0.1:9") as nobody, pytest.raises(Unreachable, match="prunus up"):
        nobody.info()


def test_an_answer_from_something_else_is_not_taken_for_ours() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(404, text="<html>"))
    with Client(HOST, transport=transport) as lost, pytest.raises(NotFound, match="is that a prunus server"):
        lost.info()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not json",
        "[]",
        "{}",
        '{"campaign": {"jobs": "x"}}',
        '{"campaign": {"jobs": [{"name": "../a"}]}}',
        '{"campaign": {"jobs": []}}',
        '{"campaign": {"jobs": []}, "more": 1}',
        '{"campaign": {"name": "a", "jobs": [' + "[" * 100_000 + "]" * 100_000 + "]}}",
    ],
)
def test_a_body_that_is_no_campaign_is_refused_with_a_problem(http: TestClient, world: World, content: str) -> None:
    answer = http.post("/v1/campaigns", content=content, headers={"content-type": "application/json"})
    # JSON nested beyond what Python reads is a 400 already in FastAPI; the rest is read and judged by us.
    assert answer.status_code == (400 if "[[[" in content else 422)
    assert answer.json()["error"]
    assert "Traceback" not in answer.text
    assert world.store.jobs() == []


def test_a_mistake_in_a_spec_is_named_by_its_path(http: TestClient) -> None:
    wrong = json.loads(body("a"))
    wrong["campaign"]["jobs"][0]["method"] = {"name": "gradual_magnitude", "final_sparsity": 1.2}
    answer = http.post("/v1/campaigns", json=wrong)
    assert answer.status_code == 422
    assert "campaign.jobs.0.method" in answer.json()["error"]
    assert "1.2" in answer.json()["error"]


def test_unknown_routes_and_methods_are_problems_too(http: TestClient) -> None:
    for answer in (http.get("/v1/nope"), http.delete("/v1/jobs/a"), http.get("/v1/jobs?state=DONE")):
        assert answer.status_code in {404, 405, 422}
        assert answer.json()["error"]


def test_a_fault_of_ours_tells_nothing_of_its_inside(
    http: TestClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(world.store, "find_job", broken)
    answer = http.get("/v1/jobs/a")
    assert (answer.status_code, answer.json()["kind"]) == (500, "ServerFault")
    assert "inside" not in answer.text
