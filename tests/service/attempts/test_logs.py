"""Logs by byte offset, over the socket."""

from pathlib import Path

import pytest

from prunus.configs import StopReason
from prunus.service.client import Client
from prunus.service.errors import NotFound
from tests.service.world import World, make_spec


def test_a_growing_log_is_followed_by_offset_and_ends_with_its_attempt(client: Client, world: World) -> None:
    world.submit(make_spec("a"))
    assert (client.log("a").data, client.log("a").ended) == (b"", False)
    attempt = world.start("a")
    path = world.directory("a").rank_log(1, 0)
    path.write_bytes("zwölf\nö".encode()[:-1])  # The last character is half written.
    first = client.log("a")
    assert (first.text, first.ended) == ("zwölf\n", False)
    path.write_bytes("zwölf\nöff\n".encode())
    second = client.log("a", offset=first.next_offset)
    assert (second.text, second.ended) == ("öff\n", False)
    world.cluster.finish(attempt)
    world.step()
    last = client.log("a", offset=second.next_offset)
    assert (last.data, last.ended) == (b"", True)


def test_a_long_log_comes_in_pieces_of_a_mebibyte_byte_exact(client: Client, world: World) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    content = "".join(f"línea {number}\n" for number in range(250_000)).encode()
    world.directory("a").rank_log(1, 0).write_bytes(content)
    world.cluster.finish(attempt)
    world.step()
    pieces, offset, ended = [], 0, False
    while not ended:
        chunk = client.log("a", rank=0, offset=offset)
        assert len(chunk.data) <= 1 << 20
        pieces.append(chunk.data)
        offset, ended = chunk.next_offset, chunk.ended
    assert b"".join(pieces) == content


def test_the_driver_speaks_where_no_rank_did(client: Client, world: World) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    world.cluster.logs[attempt] = "cannot import x\n"
    assert client.log("a", rank=-1).text == "cannot import x\n"
    assert client.log("a").text == ""
    world.cluster.finish(attempt, StopReason.LAUNCH_FAILED)
    world.step()
    assert client.log("a").text == "cannot import x\n"


def test_a_drivers_log_is_followed_past_64_kib_and_over_the_end_of_its_attempt(client: Client, world: World) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    written = ""
    read, offset = b"", 0
    for piece in ("ö" * 50_000, "second\n" * 5_000, "third\n"):
        written += piece
        world.cluster.logs[attempt] = written
        chunk = client.log("a", rank=-1, offset=offset)
        read, offset = read + chunk.data, chunk.next_offset
        assert read == written.encode()
    world.cluster.logs[attempt] += "the cause\n"
    world.cluster.finish(attempt, StopReason.USER_ERROR, "no")
    world.step()
    last = client.log("a", rank=-1, offset=offset)
    assert (last.data, last.ended) == (b"the cause\n", True)
    late = client.log("a", rank=-1).text
    notice, _, tail = late.partition("\n")
    whole = written + "the cause\n"
    assert notice == f"[prunus: the first {len(whole.encode()) - len(tail.encode())} bytes are not kept]"
    assert whole.endswith(tail) and 65_530 < len(tail.encode()) <= 65_536


def test_a_rank_or_attempt_that_does_not_exist_is_not_found(client: Client, world: World) -> None:
    world.submit(make_spec("a"))
    world.start("a")
    with pytest.raises(NotFound, match="there is no rank 1"):
        client.log("a", rank=1)
    with pytest.raises(NotFound, match="there is no attempt 2"):
        client.log("a", attempt=2)


def test_a_log_that_is_a_link_is_not_followed(client: Client, world: World, tmp_path: Path) -> None:
    world.submit(make_spec("a"))
    world.start("a")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    world.directory("a").rank_log(1, 0).symlink_to(secret)
    assert client.log("a").data == b""
