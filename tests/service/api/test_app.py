"""The HTTP API: over ASGI with hand-made requests, and over a loopback socket with our own client."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from prunus.configs import Progress, StopReason
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.service.api.app import Parts, create_app
from prunus.service.client import Client
from prunus.service.errors import NotFound, Refused, Unauthorized, Unreachable
from prunus.service.wire import JobState, Submission
from tests.service.world import HOST, World, finish, make_app, make_campaign, make_spec


def body(*names: str) -> str:
    return Submission(campaign=make_campaign(*(make_spec(name) for name in names))).model_dump_json(by_alias=True)


def test_a_campaign_goes_through_client_queue_and_cluster(client: Client, world: World) -> None:
    submitted = client.submit(make_campaign(make_spec("a"), make_spec("b", "job:a"), name="demo"))
    assert [(job.name, job.state) for job in submitted.jobs] == [("a", JobState.QUEUED), ("b", JobState.BLOCKED)]
    finish(world, "a", {"model/config.json": "{}"})
    detail = client.job("demo/a")
    assert (detail.state, detail.spec, detail.run_id) == (JobState.SUCCEEDED, make_spec("a"), f"run-of-{detail.id}")
    assert detail.attempts[0].reason is StopReason.SUCCEEDED
    assert client.campaign("demo") == client.campaign(submitted.id)
    assert [job.name for job in client.jobs()] == ["b", "a"]
    assert [job.name for job in client.jobs(state=JobState.SUCCEEDED)] == ["a"]
    assert [job.name for job in client.jobs(campaign="demo", state=[JobState.STARTING, JobState.QUEUED])] == ["b"]
    assert client.cancel("demo/b").state is JobState.CANCELLING
    assert client.cancel(detail.id).state is JobState.SUCCEEDED
    assert client.info().embedded is False


def test_a_campaign_is_listed_counted_and_cancelled_as_one(client: Client, world: World) -> None:
    specs = [make_spec("a"), make_spec("b", "job:a"), make_spec("c"), make_spec("d")]
    submitted = client.submit(make_campaign(*specs, name="demo", max_parallel=2))
    assert (submitted.max_parallel, submitted.num_jobs, submitted.progress) == (2, 4, 0.0)
    finish(world, "a", {"model/config.json": "{}"})
    directory = world.directory("c")
    half = Progress(attempt_id=world.attempt_id("c"), time=1.0, phase="training", step=5, num_steps=10)
    write_atomic(directory.progress(1), half.model_dump_json())
    world.step()
    (listed,) = client.campaigns()
    states = JobState.SUCCEEDED, JobState.RUNNING, JobState.STARTING, JobState.QUEUED
    assert listed.counts == dict.fromkeys(states, 1)
    assert listed.progress == (1 + 0.5) / 4
    assert client.campaign("demo").counts == listed.counts
    answer = client.cancel_campaign("demo")
    assert answer.cancelled == tuple(job.id for job in submitted.jobs[1:])
    assert answer.campaign.counts == {JobState.SUCCEEDED: 1, JobState.CANCELLING: 2, JobState.CANCELLED: 1}
    assert client.cancel_campaign(submitted.id).cancelled == ()
    with pytest.raises(NotFound, match="no campaign 'a'; `prunus campaigns`"):
        client.cancel_campaign("a")


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


def test_a_body_over_16_mebibytes_is_refused(http: TestClient) -> None:
    for content in (b" " * (16 * 1024 * 1024 + 1), (b" " * 1024 * 1024 for _ in range(17))):
        answer = http.post("/v1/campaigns", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 413


def test_twenty_posts_with_one_key_queue_once(client: Client, world: World) -> None:
    campaign = make_campaign(make_spec("a"), make_spec("b"))
    barrier = threading.Barrier(20)

    def post(_: int) -> str:
        barrier.wait()
        return client.submit(campaign, idempotency_key="once").id

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(post, range(20)))) == 1
    assert len(world.store.jobs()) == 2
    with pytest.raises(Refused, match="used for another campaign"):
        client.submit(make_campaign(make_spec("other")), idempotency_key="once")


def test_a_repeat_gives_the_first_answer_also_when_the_recipe_could_not_be_queued_any_more(
    client: Client, world: World
) -> None:
    campaign = make_campaign(make_spec("pair", resources={"num_ranks": 2}))
    first = client.submit(campaign, idempotency_key="once")
    world.cluster.nodes = world.cluster.nodes[:0]
    assert client.submit(campaign, idempotency_key="once").id == first.id


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


def test_the_server_is_not_ready_without_its_scheduler(world: World) -> None:
    parts = Parts(
        settings=world.settings,
        store=world.store,
        executor=world.cluster,
        sources=world.sources,
        registry=world.registry,
        ready=lambda: False,
    )
    http = TestClient(create_app(parts), base_url=HOST)
    assert (http.get("/healthz").status_code, http.get("/readyz").status_code) == (200, 503)


def test_the_scheme_names_every_route(http: TestClient) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert {"/v1/info", "/v1/jobs", "/v1/jobs/{ref}", "/v1/campaigns", "/v1/artifacts/file"} <= set(paths)
    assert set(paths["/v1/campaigns"]) == {"get", "post"}
    assert set(paths["/v1/campaigns/{ref}/cancel"]) == {"post"}
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    assert {"counts", "progress", "max_parallel", "jobs"} <= set(schemas["CampaignView"]["properties"])
    assert schemas["Campaign-Input" if "Campaign-Input" in schemas else "Campaign"]["properties"]["max_parallel"]
