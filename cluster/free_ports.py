"""Ports that are free now on this machine."""

import random
import socket
from dataclasses import dataclass

from prunus.cluster.errors import EmbeddedRayFailed

LOOPBACK = "127.0.0.1"

_DASHBOARD = 8265
"""Ray's own choice; another where it is taken."""

_PORT_RANGE = (20_000, 32_000)

_RANDOM = random.SystemRandom()


@dataclass(frozen=True)
class RayPorts:
    """Ports of one head; all on loopback."""

    dashboard: int
    """HTTP: the Jobs API."""
    gcs: int
    client: int
    agent: int


def pick_port(preferred: int | None = None) -> int:
    """Return a port that is free now on loopback: ``preferred`` if it is, else a random one.

    The random ones lie below the range that the kernel gives to outgoing connections and to programs that ask for
    port 0, so that none of those takes it before it is used.
    """
    for port in (preferred, *_RANDOM.sample(range(*_PORT_RANGE), 200)):
        if port is None:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise EmbeddedRayFailed("no free port on 127.0.0.1; end something that listens there")


def pick_ports() -> RayPorts:
    """Choose ports for a head."""
    return RayPorts(dashboard=pick_port(_DASHBOARD), gcs=pick_port(), client=pick_port(), agent=pick_port())
