"""The application as a whole."""

from starlette.testclient import TestClient

from prunus.service.wire import Submission
from tests.service.world import make_campaign, make_spec


def body(*names: str) -> str:
    return Submission(campaign=make_campaign(*(make_spec(name) for name in names))).model_dump_json(by_alias=True)


def test_the_scheme_names_every_route(http: TestClient) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert {"/v1/info", "/v1/jobs", "/v1/jobs/{ref}", "/v1/campaigns", "/v1/artifacts/file"} <= set(paths)
    assert set(paths["/v1/campaigns"]) == {"get", "post"}
    assert set(paths["/v1/campaigns/{ref}/cancel"]) == {"post"}
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    assert {"counts", "progress", "max_parallel", "jobs"} <= set(schemas["CampaignView"]["properties"])
    assert schemas["Campaign-Input" if "Campaign-Input" in schemas else "Campaign"]["properties"]["max_parallel"]
