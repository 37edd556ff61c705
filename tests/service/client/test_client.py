"""What the client promises beside its calls, which ``test_app`` makes over a socket."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx
import pytest

from prunus.service.client.client import Client, LogChunk
from prunus.service.errors import Refused, ServerFault, Unreachable
from tests.service.world import make_campaign, make_spec

ROOT = Path(__file__).parents[3]
HEAVY = ("fastapi", "sqlalchemy", "alembic", "mlflow", "ray", "torch", "numpy")


def test_importing_the_client_loads_nothing_heavy() -> None:
    code = f"import sys, prunus.service.client.client; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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


def test_a_connection_cut_in_the_middle_of_a_file_is_unreachable() -> None:
    class Cut(httpx.SyncByteStream):
        def __iter__(self):  # type: ignore[no-untyped-def]
            yield b"begin"
            raise httpx.ReadError("connection reset")

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Cut()))
    with (
        Client("http://127.0.0.1", transport=transport) as client,
        pytest.raises(Unreachable, match="connection reset"),
        client.open_file("job:a", "model/x") as chunks,
    ):
        list(chunks)


def test_a_file_is_asked_for_as_it_is_so_that_offsets_count_its_own_bytes() -> None:
    asked: list[httpx.Headers] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers)
        return httpx.Response(206, content=b"rest")

    with Client("http://127.0.0.1", transport=httpx.MockTransport(answer)) as client:
        for offset in (0, 3):
            with client.open_file("job:a", "model/x", offset=offset) as chunks:
                list(chunks)
    assert [headers["accept-encoding"] for headers in asked] == ["identity", "identity"]
    assert [headers.get("range") for headers in asked] == [None, "bytes=3-"]


def test_a_proxy_that_drops_the_range_is_noticed() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=b"whole file"))
    with (
        Client("http://127.0.0.1", transport=transport) as client,
        pytest.raises(ServerFault, match="byte range"),
        client.open_file("job:a", "model/x", offset=3),
    ):
        pass


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


def test_bytes_that_are_no_text_are_shown_all_the_same() -> None:
    assert LogChunk(b"a\xffb", 3, True).text == "a\ufffdb"


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
