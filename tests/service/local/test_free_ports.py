"""Ports are free, and different."""

import socket

from prunus.service.local.free_ports import pick_port, pick_ports


def test_a_taken_port_is_not_picked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert pick_port(port) != port
    free = pick_port()
    assert pick_port(free) == free
    ports = pick_ports()
    assert len({ports.dashboard, ports.gcs, ports.client, ports.agent}) == 4
