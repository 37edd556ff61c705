"""What the client promises beside its calls, which ``test_app`` makes over a socket."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from prunus.service.client.client import Client, LogChunk
from prunus.service.errors import ServerFault, Unreachable

ROOT = Path(__file__).parents[3]

HEAVY = ("fastapi", "sqlalchemy", "alembic", "mlflow", "ray", "torch", "numpy")


def test_importing_the_client_loads_nothing_heavy() -> None:
    code = f"import sys, prunus.service.client.client; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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


def test_bytes_that_are_no_text_are_shown_all_the_same() -> None:
    assert LogChunk(b"a\xffb", 3, True).text == "a\ufffdb"
