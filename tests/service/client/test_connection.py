"""What the connection promises: what is repeated, what is refused, what an answer of something else is."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import httpx
import pytest

from prunus.service.client.client import Client
from prunus.service.errors import Refused, ServerFault, Unreachable
from tests.service.world import make_campaign, make_spec


def test_a_submission_whose_answer_was_lost_is_repeated_with_the_same_key() -> None:
    keys: list[str] = []

    def lose_the_first(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        if len(keys) == 1:
            raise httpx.ReadError("connection reset")
        return httpx.Response(200, json={"id": "c-1", "created_at": 1.0, "jobs": []})

    with Client("http://127.0.0.1", transport=httpx.MockTransport(lose_the_first)) as client:
        assert client.submit(make_campaign(make_spec("a"))).id == "c-1"
    assert len(keys) == 2
    assert keys[0] == keys[1]


class ClosesKeptConnections(BaseHTTPRequestHandler):
    """Answers the first request of a connection as if it stayed open; a second one there finds it closed."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]] = []

    def handle(self) -> None:
        self.handle_one_request()
        self.rfile.readline()

    def do_GET(self) -> None:
        self.asked.append(self.command)
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def closing_url() -> Iterator[str]:
    ClosesKeptConnections.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), ClosesKeptConnections) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_reading_on_a_kept_connection_that_was_closed_is_repeated_on_a_new_one(closing_url: str) -> None:
    with Client(closing_url) as client:
        assert [client.jobs() for _ in range(3)] == [[], [], []]
    assert ClosesKeptConnections.asked == ["GET", "GET", "GET"]


def test_a_change_on_a_kept_connection_that_was_closed_is_not_repeated(closing_url: str) -> None:
    with Client(closing_url) as client:
        client.jobs()
        with pytest.raises(Unreachable):
            client.cancel("a")
    assert ClosesKeptConnections.asked == ["GET"]


def test_an_answer_of_another_version_is_named_as_such() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"strange": 1}))
    with (
        Client("http://127.0.0.1", transport=transport) as client,
        pytest.raises(ServerFault, match="same prunus version"),
    ):
        client.job("a")


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_without_its_server_is_unreachable(status: int) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, text="<html>"))
    with Client("http://127.0.0.1", transport=transport) as client, pytest.raises(Unreachable):
        client.info()


@pytest.mark.parametrize(
    "url", ["http://[::1", "127.0.0.1:8711", "http://", "ftp://h", "http://h:99999", "http://h:x", ""]
)
def test_an_address_that_cannot_be_used_is_refused_at_once(url: str) -> None:
    with pytest.raises(Refused, match=r"cannot be used: .*; write --url \(PRUNUS_URL\) http://HOST:PORT"):
        Client(url)


@pytest.mark.parametrize("token", ["s3crét", "s3cr\net", "s3cret\n", "s3cr et", "s3cr\x00et"])
def test_a_token_that_no_header_carries_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(Refused, match=r"the token \(PRUNUS_TOKEN, or its file\) has U\+00") as caught:
        Client("http://127.0.0.1", token)
    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize("ref", ["", " ", "/", "..", ":"])
def test_a_reference_that_names_nothing_is_refused(ref: str) -> None:
    with Client("http://127.0.0.1", transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
        for ask in (client.job, client.campaign, client.cancel, client.log):
            with pytest.raises(Refused, match="names no job; give a NAME, CAMPAIGN/NAME or id"):
                ask(ref)
