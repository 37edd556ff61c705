"""Listing and streaming artifacts: byte ranges, and nothing but what a manifest names."""

import json

import pytest
from starlette.testclient import TestClient

from prunus.service.client import Client
from tests.service.world import HOST, World, finish, make_app, make_spec


def test_a_file_is_streamed_from_any_offset(client: Client, world: World) -> None:
    content = "".join(f"{number:09d}\n" for number in range(100_000))
    world.submit(make_spec("a"))
    finish(world, "a", {"model/weights.txt": content, "masks/step-1/mask.json": "[]"})
    listing = client.artifacts("job:a")
    assert {file.path: file.size for file in listing.files} == {
        "model/weights.txt": 1_000_000,
        "masks/step-1/mask.json": 2,
    }
    for offset in (0, 1, 999_999, 1_000_000):
        with client.open_file("job:a", "model/weights.txt", offset) as chunks:
            assert b"".join(chunks) == content.encode()[offset:]
    with client.open_file("job:a", "manifest.json") as chunks:
        assert json.loads(b"".join(chunks))["job_name"] == "a"


@pytest.mark.parametrize(
    ("ranges", "status", "content"),
    [
        ("bytes=2-4", 206, "234"),
        ("bytes=-3", 206, "789"),
        ("bytes=8-100", 206, "89"),
        ("bytes=10-", 416, None),
        ("bytes=5-2", None, None),
        ("pages=1-2", None, None),
    ],
)
def test_ranges_give_what_http_says(
    http: TestClient, world: World, ranges: str, status: int | None, content: str | None
) -> None:
    world.submit(make_spec("a"))
    finish(world, "a", {"model/digits": "0123456789"})
    answer = http.get(
        "/v1/artifacts/file", params={"source": "job:a", "path": "model/digits"}, headers={"range": ranges}
    )
    assert answer.status_code == status if status else answer.status_code in {200, 400, 416}
    if content is not None:
        assert answer.text == content


TRICKS = [
    "../attempts/1/launch.json",
    "model/../../attempts/1/launch.json",
    "/etc/passwd",
    "//etc/passwd",
    "..\\..\\secret",
    "%2e%2e/attempts/1/launch.json",
    "....//attempts/1/launch.json",
    "model/./config.json",
    "./model/config.json",
    "model//config.json",
    "model",
    "",
    ".",
    "C:/windows",
    "model/config.json\x00",
    "model/unlisted",
    "model/link",
    "linked/config.json",
]


@pytest.mark.parametrize("trick", TRICKS)
def test_a_path_gives_only_what_the_manifest_names(http: TestClient, world: World, trick: str) -> None:
    world.submit(make_spec("a"))
    finish(world, "a", {"model/config.json": "{}", "model/link": "x", "linked/config.json": "x"})
    root = world.directory("a").artifacts
    secret = world.home / "secret"
    secret.write_text("secret")
    (root / "model" / "unlisted").write_text("secret")
    (root / "model" / "link").unlink()
    (root / "model" / "link").symlink_to(secret)
    (root / "linked" / "config.json").rename(world.home / "config.json")
    (root / "linked").rmdir()
    (root / "linked").symlink_to(world.home)
    answer = http.get("/v1/artifacts/file", params={"source": "job:a", "path": trick})
    assert answer.status_code in {404, 422}
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "source", ["job:nope", "job:../a", "models:/a", "models:/a@b", "/etc", "org/model", "", "job:"]
)
def test_a_source_that_is_no_artifact_is_not_found(http: TestClient, source: str) -> None:
    for path in ("/v1/artifacts", "/v1/artifacts/file"):
        answer = http.get(path, params={"source": source, "path": "model/config.json"})
        assert (answer.status_code, "error" in answer.json()) == (404, True)


def test_an_unfinished_job_has_no_artifact_yet(http: TestClient, world: World) -> None:
    world.submit(make_spec("a"))
    answer = http.get("/v1/artifacts", params={"source": "job:a"})
    assert answer.status_code == 404
    assert "QUEUED" in answer.json()["error"]


def test_an_alias_without_a_registry_names_the_setting(world: World) -> None:
    http = TestClient(make_app(world), base_url=HOST)
    assert "--mlflow-uri" in http.get("/v1/artifacts", params={"source": "models:/a@b"}).json()["error"]
